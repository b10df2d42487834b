"""Old things again, nothing at all, too slow, and numbers run ahead: rollback, freeze, slow retrieval, fast-forward."""

import pytest

from tests.agent.test_keyring import offer, record
from tests.agent.update_kit import Release, Signer, make_release, weights
from tests.attacks.kit import FIRST, NAME, OPERATOR, RUNNING, TARGET, THIEF, Victim, honest

NEXT = Signer(0xAE77)


def at(victim: Victim, sequence: int) -> Victim:
    """The victim runs the operator's release of that number."""
    victim.generation += 1
    victim.install(
        make_release(OPERATOR, f"model-{sequence}", weights(9000, sequence), sequence), victim.generation
    )
    victim.reports.clear()
    return victim


def offered(victim: Victim, release: Release) -> tuple[str, str | None]:
    victim.generation += 1
    victim.broker.publish(release)
    victim.want(release, victim.generation).run()
    return victim.last()


# --- rollback ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", [1, 2, 4])
def test_rollback_to_a_release_that_was_signed_once(sequence: int) -> None:
    victim = at(Victim(), 5)
    old = make_release(OPERATOR, f"old-{sequence}", TARGET, sequence)
    assert offered(victim, old) == ("rejected", "sequence-too-old")
    assert victim.model() == ("model-5", weights(9000, 5))


def test_rollback_to_the_very_release_that_it_ran_before() -> None:
    victim = at(Victim(), 5)
    assert offered(victim, FIRST) == ("rejected", "sequence-too-old")


def test_rollback_while_the_camera_was_off_and_forgot_what_it_was_asked() -> None:
    victim = at(Victim(), 5)
    victim.boot().run()
    victim.want(FIRST, 1).run()
    assert victim.last() == ("rejected", "sequence-too-old")
    assert victim.model() == ("model-5", weights(9000, 5))


def test_rollback_by_an_old_manifest_under_the_new_release_s_name() -> None:
    victim = at(Victim(), 5)
    victim.broker.retained["_release/model-6"] = FIRST.blob
    victim.want("model-6", 50).run()
    assert victim.last() == ("rejected", "manifest-invalid")


def test_rollback_of_the_floor_by_an_older_pointer_copy() -> None:
    """One damaged copy of the pointer brings back the one before: the floor falls by one release, no further."""
    victim = at(at(Victim(), 5), 9)
    newest = max(
        (victim.files.pointer_0, victim.files.pointer_1),
        key=lambda region: int.from_bytes(region.settled[4:8], "little"),  # type: ignore[union-attr]
    )
    assert newest is not None
    newest.settled[10] ^= 1
    victim.boot().run()
    victim.run().classify().run()
    assert offered(victim, make_release(OPERATOR, "model-4", TARGET, 4)) == ("rejected", "sequence-too-old")


def test_the_running_release_offered_again_is_a_repeated_answer_and_no_update() -> None:
    victim = Victim()
    assert offered(victim, FIRST) == ("confirmed", None)
    assert victim.states() == ["confirmed"]


# --- freeze and slow retrieval ------------------------------------------------------------------------------


def test_a_manifest_that_is_withheld_is_reported_and_asked_for_again() -> None:
    victim = Victim()
    victim.want(NAME, 2).wait(61)
    assert victim.last() == ("failed", "unknown-release")
    victim.wait(3600)
    assert victim.states() == ["failed"]
    assert victim.broker.asked.count(f"_release/{NAME}") > 3
    assert victim.model() == ("model-1", RUNNING)
    victim.is_healthy()


@pytest.mark.parametrize("kind", ["block", "index"])
def test_blocks_that_are_withheld_end_the_transfer_and_not_the_camera(kind: str) -> None:
    release = make_release(OPERATOR, NAME, weights(30_000, 6), 2)
    index = next(topic for topic, data in release.topics().items() if data == release.encodings[0].index[0])
    withheld = index if kind == "index" else "/2"
    victim = Victim().offered(release, lambda topic, payload: [] if topic.endswith(withheld) else [payload])
    victim.wait(901)
    victim.repelled("failed", "connection-lost")


def test_slow_retrieval_leaves_the_old_model_working_and_ends_well() -> None:
    """One block every four minutes: slow is no failure, and nothing waits for it."""
    release = make_release(OPERATOR, NAME, weights(30_000, 6), 2)
    victim = Victim()
    victim.broker.alter = lambda _topic, _payload: []
    victim.offered(release)
    for topic in release.topics():
        victim.broker.alter = lambda name, data, only=topic: [data] if name == only else []  # type: ignore[misc]
        victim.broker.reconnect()
        victim.wait(240)
        assert victim.model() == ("model-1", RUNNING) or victim.states()[-1] == "trial"
    victim.broker.alter = lambda _topic, payload: [payload]
    victim.broker.reconnect()
    victim.run().classify().run()
    assert victim.last() == ("confirmed", None)


def test_a_thousand_connections_in_the_middle_of_a_transfer_change_nothing() -> None:
    release = make_release(OPERATOR, NAME, weights(30_000, 6), 2)
    victim = Victim().offered(release, lambda topic, payload: [] if topic.endswith("/1") else [payload])
    for _ in range(1000):
        victim.broker.connected = False
        victim.updater.step()
        victim.broker.reconnect()
        victim.updater.step()
    victim.broker.alter = lambda _topic, payload: [payload]
    victim.broker.reconnect()
    victim.run().classify().run()
    assert victim.last() == ("confirmed", None)


# --- fast-forward and key compromise --------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", [2**31, 2**32 - 1])
def test_fast_forward_by_a_stolen_key_is_cured_by_the_next_epoch(sequence: int) -> None:
    victim = Victim()
    assert offered(victim, make_release(OPERATOR, "evil", TARGET, sequence))[0] == "trial"
    victim.classify().run()
    assert offered(victim, honest(3)) == ("rejected", "sequence-too-old")
    offer(victim, record(OPERATOR, 1, 2, NEXT))
    cured = make_release(NEXT, "model-2.1", RUNNING, 1, epoch=2)
    assert offered(victim, cured)[0] == "trial"
    victim.classify().run()
    assert victim.model() == ("model-2.1", RUNNING)


def test_a_stolen_key_is_worth_nothing_once_the_camera_knows() -> None:
    victim = Victim()
    offer(victim, record(OPERATOR, 1, 2, NEXT))
    for epoch in (1, 2, 3):
        evil = make_release(OPERATOR, f"evil-{epoch}", TARGET, 2**32 - 1, epoch=epoch)
        assert offered(victim, evil) == ("rejected", "unknown-key")
    assert victim.model() == ("model-1", RUNNING)


def test_an_old_record_played_again_brings_a_dropped_key_not_back() -> None:
    victim = Victim()
    old = record(OPERATOR, 1, 2, NEXT, OPERATOR)
    offer(victim, old, record(NEXT, 2, 3, NEXT))
    victim.broker.retained["_release/keys-3"] = old
    victim.updater.on_keys(3)
    victim.run()
    assert victim.ring.serial == 2
    evil = make_release(OPERATOR, "evil", TARGET, 9, epoch=3)
    assert offered(victim, evil) == ("rejected", "unknown-key")


@pytest.mark.parametrize("announced", [1, 7, 2**40])
def test_a_record_that_is_announced_and_withheld_delays_an_update_by_half_a_minute_only(
    announced: int,
) -> None:
    victim = Victim()
    victim.updater.on_keys(announced)
    victim.offered(make_release(OPERATOR, NAME, TARGET, 2))
    victim.wait(31).run().classify().run()
    assert victim.last() == ("confirmed", None)


def test_a_stranger_s_record_is_refused_and_said_so() -> None:
    victim = Victim()
    offer(victim, record(THIEF, 1, 2, THIEF))
    assert "keys-refused:unknown-key" in victim.updater.status()["problems"]
    victim.is_healthy()


# --- replayed desired state -----------------------------------------------------------------------------------


def test_an_older_desired_state_is_ignored() -> None:
    victim = at(Victim(), 5)
    victim.want("model-1", 1).run()
    victim.want(None, 0).run()
    assert victim.reports == []
    assert victim.model() == ("model-5", weights(9000, 5))


def test_the_same_desired_state_a_thousand_times_is_one_update() -> None:
    victim = Victim()
    release = make_release(OPERATOR, NAME, TARGET, 2)
    victim.broker.publish(release)
    for _ in range(1000):
        victim.want(release, 2)
        victim.updater.step()
    victim.run().classify().run()
    assert victim.states().count("confirmed") == 1


def test_a_flood_of_desired_states_ends_with_the_last_one() -> None:
    victim = Victim()
    releases = [make_release(OPERATOR, f"model-{n}", weights(9000, n), n) for n in range(2, 12)]
    for n, release in enumerate(releases, 2):
        victim.broker.publish(release)
        victim.want(release, n)
        victim.updater.step()
        victim.broker.deliver(victim.updater)
    victim.run().classify().run()
    assert victim.model() == ("model-11", weights(9000, 11))


def test_a_desired_digest_that_is_not_the_manifest_s_is_reported() -> None:
    victim = Victim()
    release = make_release(OPERATOR, NAME, TARGET, 2)
    victim.broker.publish(release)
    victim.want(release, 2, digest="ab" * 32).run()
    victim.repelled("failed", "digest-mismatch")


@pytest.mark.parametrize("expires", [1_800_000_000, 1])
def test_an_expired_release_is_refused_when_the_clock_is_trusted(expires: int) -> None:
    victim = Victim()
    victim.hal.clock = 1_800_000_000
    victim.offered(make_release(OPERATOR, NAME, TARGET, 2, expires=expires))
    victim.repelled("rejected", "expired")


def test_a_window_that_has_closed_is_kept() -> None:
    victim = Victim()
    victim.hal.clock = 1_800_000_000
    release = make_release(OPERATOR, NAME, TARGET, 2)
    victim.broker.publish(release)
    victim.want(release, 2, deadline=1_799_999_999).run()
    victim.repelled("rejected", "window-closed")


def test_a_release_that_was_reverted_is_not_tried_again() -> None:
    victim = Victim().offered(make_release(OPERATOR, NAME, TARGET, 2))
    victim.updater.trial_failed("labels-mismatch", None)
    victim.run()
    again = make_release(OPERATOR, NAME, TARGET, 2)
    assert offered(victim, again) == ("rejected", "labels-mismatch")
    victim.boot().run()
    assert offered(victim, again) == ("rejected", "labels-mismatch")
    assert victim.model() == ("model-1", RUNNING)
