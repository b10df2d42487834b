"""Cameras take other keys over the air: one record after the other, from whoever may, and keep what they run."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import crypto, keyring
from camera_agent.slots import RING_OFFSET
from tests.agent.update_kit import Camera, PowerCut, Release, Signer, make_release, weights

ADA, BOB, EVE, VAULT = Signer(0x5EED), Signer(0xB0B), Signer(0xE7E), Signer(0x7A17)
CONTENT = weights(9000)
LATER = weights(9000, 5)


def record(signer: Signer, serial: int, epoch: int, /, *keys: Signer, **changes: Any) -> bytes:
    """A signed key record."""
    body: dict[str, Any] = {"format": 1, "serial": serial, "epoch": epoch, "created": 1_790_000_000}
    body |= {"keys": [key.public.hex() for key in keys], **changes}
    return sealed(signer, json.dumps(body).encode())


def sealed(signer: Signer, text: bytes, magic: bytes = b"FKR1") -> bytes:
    head = magic + signer.key_id
    return head + signer.sign(head + text) + text


def camera(*, release: bool = True, **config: Any) -> Camera:
    """A camera of Ada's that runs her first release."""
    made = Camera(ADA)
    made.keys |= config
    made.boot()
    return made.install(make_release(ADA, "model-1", CONTENT)) if release else made


def offer(one: Camera, *records: bytes, first: int = 1) -> Camera:
    """fleetd has these records; the camera does with them what it will."""
    for n, blob in enumerate(records, first):
        one.broker.retained[f"_release/keys-{n}"] = blob
    one.updater.on_keys(first + len(records) - 1)
    return one.run()


def pointers(one: Camera) -> list[Any]:
    """The regions of both copies."""
    return [one.files.pointer_0, one.files.pointer_1]


def ring(one: Camera) -> tuple[int, int, set[bytes]]:
    return one.ring.serial, one.ring.epoch, set(one.ring.trusted)


def refusal(one: Camera) -> str | None:
    found = [word for word in one.updater.status()["problems"] if word.startswith("keys-refused:")]
    return found[0].partition(":")[2] if found else None


def push(one: Camera, release: Release, generation: int) -> tuple[str, str | None]:
    one.broker.publish(release)
    one.want(release, generation).run()
    if one.states()[-1] == "trial":
        one.classify().run()
    return one.last()


def test_a_camera_follows_a_record_and_takes_releases_of_the_new_key_only() -> None:
    one = offer(camera(), record(ADA, 1, 2, BOB))
    assert ring(one) == (1, 2, {BOB.key_id})
    assert one.updater.status()["keys"] == {"serial": 1, "epoch": 2}
    assert push(one, make_release(ADA, "model-2", LATER, 2), 2) == ("rejected", "unknown-key")
    assert push(one, make_release(BOB, "model-2.1", LATER, 1, epoch=2), 3) == ("confirmed", None)


def test_what_it_runs_stays_over_a_restart_although_its_key_is_dropped() -> None:
    one = offer(camera(), record(ADA, 1, 2, BOB)).boot().run()
    assert one.model() == ("model-1", CONTENT)
    assert ring(one) == (1, 2, {BOB.key_id})
    assert ADA.key_id in one.ring.known


def test_former_keys_stay_known_for_what_they_signed_as_far_as_there_is_room() -> None:
    one = camera()
    signers = [ADA, *[Signer(n) for n in range(100, 124)]]
    records = [record(old, n, n + 1, new) for n, (old, new) in enumerate(pairwise(signers), 1)]
    offer(one, *records)
    one.boot().run()
    assert ring(one) == (24, 25, {signers[-1].key_id})
    assert len(one.ring.known) == 16
    assert ADA.key_id in one.ring.known, "it signed what runs"
    assert one.model() == ("model-1", CONTENT)


def test_a_camera_that_was_away_climbs_record_by_record() -> None:
    one = camera()
    offer(one, record(ADA, 1, 2, BOB), record(BOB, 2, 2, BOB, EVE), record(EVE, 3, 3, VAULT))
    assert ring(one) == (3, 3, {VAULT.key_id})
    assert one.model() == ("model-1", CONTENT)
    assert one.broker.wanted == []


def test_a_number_that_a_thief_ran_up_counts_no_more_in_the_next_epoch() -> None:
    one = camera()
    assert push(one, make_release(ADA, "evil", LATER, 2**32 - 1), 2) == ("confirmed", None)
    assert push(one, make_release(ADA, "model-3", CONTENT, 3), 3) == ("rejected", "sequence-too-old")
    offer(one, record(ADA, 1, 2, BOB))
    assert push(one, make_release(BOB, "model-2.1", CONTENT, 1, epoch=2), 4) == ("confirmed", None)


def test_a_release_of_another_epoch_is_refused() -> None:
    one = offer(camera(), record(ADA, 1, 1, ADA, BOB))
    assert push(one, make_release(BOB, "model-9", LATER, 9, epoch=2), 2) == ("rejected", "wrong-epoch")
    assert push(one, make_release(BOB, "model-9", LATER, 9), 3) == ("confirmed", None)


def test_an_update_waits_for_a_record_that_is_on_its_way() -> None:
    one = camera()
    release = make_release(BOB, "model-2.1", LATER, 1, epoch=2)
    one.broker.publish(release)
    one.updater.on_keys(1)
    one.want(release, 2).run()
    assert one.states()[-1] == "confirmed", "the release before"
    one.broker.retained["_release/keys-1"] = record(ADA, 1, 2, BOB)
    one.broker.reconnect()
    one.run().classify().run()
    assert one.last() == ("confirmed", None)
    assert one.model() == ("model-2.1", LATER)


def test_an_update_does_not_wait_for_ever() -> None:
    one = camera()
    one.updater.on_keys(7)
    release = make_release(ADA, "model-2", LATER, 2)
    one.broker.publish(release)
    one.want(release, 2).run().wait(31).run().classify().run()
    assert one.last() == ("confirmed", None)


def test_an_update_under_way_is_judged_again_under_the_new_keys() -> None:
    one = camera()
    release = make_release(ADA, "model-2", weights(30_000, 3), 2)
    one.broker.publish(release)
    one.broker.alter = lambda topic, payload: [payload] if not topic.endswith("/3") else []
    one.want(release, 2).run()
    assert one.states()[-1] == "transferring"
    one.broker.alter = lambda _topic, payload: [payload]
    offer(one, record(ADA, 1, 2, BOB))
    assert one.last() == ("rejected", "unknown-key")
    assert one.model() == ("model-1", CONTENT)


def test_a_release_on_trial_goes_back_when_its_key_is_dropped() -> None:
    """Whoever rotates because a key was stolen does not want the thief's release to prove itself meanwhile."""
    one = camera()
    evil = make_release(ADA, "evil", LATER, 2)
    one.broker.publish(evil)
    one.want(evil, 2).run()
    assert one.states()[-1] == "trial"
    offer(one, record(ADA, 1, 2, BOB))
    assert ("reverted", "unknown-key") in [(report["state"], report["reason"]) for report in one.reports]
    assert one.model() == ("model-1", CONTENT)
    one.boot().run()
    assert one.model() == ("model-1", CONTENT)


def test_a_release_on_trial_goes_on_when_its_key_stays() -> None:
    one = camera()
    release = make_release(ADA, "model-2", LATER, 2)
    one.broker.publish(release)
    one.want(release, 2).run()
    offer(one, record(ADA, 1, 1, ADA, BOB))
    one.classify().run()
    assert one.model() == ("model-2", LATER)


def test_a_record_that_was_announced_once_is_not_unsaid() -> None:
    one = camera()
    one.updater.on_keys(1)
    one.updater.on_keys(0)
    one.broker.retained["_release/keys-1"] = record(ADA, 1, 2, BOB)
    one.run()
    assert ring(one) == (1, 2, {BOB.key_id})


def test_a_recovery_key_alone_signs_what_follows_once_there_is_one() -> None:
    one = offer(camera(), record(ADA, 1, 1, ADA, recovery=[VAULT.public.hex()]))
    offer(one, record(ADA, 2, 2, EVE), first=2)
    assert refusal(one) == "unknown-key"
    assert ring(one) == (1, 1, {ADA.key_id})
    one.wait(601)
    one.broker.retained["_release/keys-2"] = record(VAULT, 2, 2, BOB, recovery=[VAULT.public.hex()])
    one.wait(601).run()
    assert ring(one) == (2, 2, {BOB.key_id})
    assert refusal(one) is None
    assert push(one, make_release(VAULT, "model-8", LATER, 8, epoch=2), 2) == ("rejected", "unknown-key")


BAD = {
    "signed-by-a-stranger": (record(EVE, 1, 2, EVE), "unknown-key"),
    "a-number-left-out": (record(ADA, 2, 2, BOB), "sequence-too-old"),
    "a-number-far-ahead": (record(ADA, 2**31 - 1, 2, BOB), "sequence-too-old"),
    "the-epoch-run-ahead": (record(ADA, 1, 3, BOB), "wrong-epoch"),
    "an-epoch-before": (record(ADA, 1, 0, BOB), "manifest-invalid"),
    "no-keys": (record(ADA, 1, 2), "manifest-invalid"),
    "nine-keys": (record(ADA, 1, 2, *[Signer(n) for n in range(1, 10)]), "manifest-invalid"),
    "half-a-key": (record(ADA, 1, 2, keys=[BOB.public.hex()[:64]]), "manifest-invalid"),
    "a-key-in-capitals": (record(ADA, 1, 2, keys=[BOB.public.hex().upper()]), "manifest-invalid"),
    "keys-no-list": (record(ADA, 1, 2, keys=BOB.public.hex()), "manifest-invalid"),
    "recovery-no-list": (record(ADA, 1, 2, BOB, recovery={"a": 1}), "manifest-invalid"),
    "another-format": (record(ADA, 1, 2, BOB, format=2), "manifest-invalid"),
    "serial-true": (record(ADA, 1, 2, BOB, serial=True), "manifest-invalid"),
    "serial-fraction": (record(ADA, 1, 2, BOB, serial=1.0), "manifest-invalid"),
    "no-json": (sealed(ADA, b"keys"), "manifest-invalid"),
    "json-no-object": (sealed(ADA, b"[1]"), "manifest-invalid"),
    "not-utf-8": (sealed(ADA, b'{"format": "\xff"}'), "manifest-invalid"),
    "nested": (sealed(ADA, b"[" * 900), "manifest-invalid"),
    "empty": (b"FKR1", "signature-invalid"),
    "too-long": (record(ADA, 1, 2, BOB, note="x" * 3000), "signature-invalid"),
    "a-manifest-in-its-place": (make_release(ADA, "model-2", CONTENT, 2).blob, "signature-invalid"),
    "a-manifest-relabelled": (
        b"FKR1" + make_release(ADA, "model-2", CONTENT, 2).blob[4:],
        "signature-invalid",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_changes_nothing(case: str) -> None:
    blob, reason = BAD[case]
    one = camera()
    before = [bytes(region.seen()) for region in pointers(one)]
    offer(one, blob)
    assert refusal(one) == reason
    assert ring(one) == (0, 1, {ADA.key_id})
    assert [bytes(region.seen()) for region in pointers(one)] == before
    assert push(one, make_release(ADA, "model-2", LATER, 2), 2) == ("confirmed", None)


def test_a_record_in_the_place_of_a_manifest_is_no_manifest() -> None:
    one = camera()
    release = Release("model-2", record(ADA, 1, 2, BOB), CONTENT)
    assert push(one, release, 2) == ("rejected", "signature-invalid")


def test_every_changed_byte_of_a_record_is_noticed() -> None:
    good = record(ADA, 1, 2, BOB)
    one = camera()
    for at in range(0, len(good), 5):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        one.updater._keys.refused = None
        one.hal.now += 700_000
        offer(one, bytes(bad))
        assert refusal(one) in ("signature-invalid", "unknown-key"), at
    assert ring(one) == (0, 1, {ADA.key_id})


@pytest.mark.parametrize("tear", ["lost", "kept", "half", "swapped", "after"])
def test_a_power_cut_leaves_the_old_keys_or_the_new_ones_and_always_the_model(tear: str) -> None:
    for cut_at in range(1, 9):
        one = camera()
        one.files.medium.power_on(cut_at, tear)
        try:
            offer(one, record(ADA, 1, 2, BOB))
            was_cut = False
        except PowerCut:
            was_cut = True
        one.files.medium.power_on()
        one.boot().run()
        assert one.model() == ("model-1", CONTENT)
        assert ring(one) in ((0, 1, {ADA.key_id}), (1, 2, {BOB.key_id}))
        offer(one, record(ADA, 1, 2, BOB))
        assert ring(one) == (1, 2, {BOB.key_id})
        if not was_cut:
            return
    raise AssertionError("the power was cut at every operation that was tried")


def test_storage_that_refuses_keeps_the_old_keys_and_tries_again() -> None:
    one = camera()
    for region in pointers(one):
        region.refuses = "storage-error"
    offer(one, record(ADA, 1, 2, BOB))
    assert (refusal(one), ring(one)) == ("storage-error", (0, 1, {ADA.key_id}))
    for region in pointers(one):
        region.refuses = None
    one.wait(601).run()
    assert ring(one) == (1, 2, {BOB.key_id})


def test_who_provisions_a_camera_anew_says_its_keys_and_it_keeps_its_model() -> None:
    one = offer(camera(), record(ADA, 1, 2, BOB), record(BOB, 2, 3, EVE))
    one.keys = {"keys": [VAULT.public], "serial": 2, "epoch": 3}
    one.boot().run()
    assert ring(one) == (2, 3, {VAULT.key_id})
    assert one.model() == ("model-1", CONTENT)
    assert push(one, make_release(EVE, "model-3.1", LATER, 1, epoch=3), 2) == ("rejected", "unknown-key")
    assert push(one, make_release(VAULT, "model-3.1", LATER, 1, epoch=3), 3) == ("confirmed", None)


def test_a_damaged_copy_of_the_keys_is_made_up_for_by_the_other() -> None:
    one = offer(camera(), record(ADA, 1, 2, BOB), record(BOB, 2, 3, EVE))
    for region in pointers(one):
        damaged = bytearray(region.settled)
        damaged[RING_OFFSET + 30] ^= 0xFF
        before, region.settled = region.settled, damaged
        one.boot().run()
        assert one.ring.serial in (1, 2)
        assert offer(one, record(ADA, 1, 2, BOB), record(BOB, 2, 3, EVE)).ring.serial == 2
        region.settled = before


def test_a_camera_without_readable_keys_on_storage_goes_by_its_settings() -> None:
    one = offer(camera(release=False), record(ADA, 1, 2, BOB))
    for region in pointers(one):
        region.settled[RING_OFFSET : RING_OFFSET + 4] = b"\xff" * 4
    one.boot().run()
    assert ring(one) == (0, 1, {ADA.key_id})


@given(
    keys=st.lists(st.integers(1, 40), min_size=1, max_size=8, unique=True),
    recovery=st.lists(st.integers(41, 50), max_size=3, unique=True),
    old=st.lists(st.integers(51, 60), max_size=3, unique=True),
    serial=st.integers(0, 2**31 - 1),
    epoch=st.integers(1, 2**31 - 1),
)
def test_what_is_packed_is_unpacked(
    keys: list[int], recovery: list[int], old: list[int], serial: int, epoch: int
) -> None:
    raw = [[bytes([n]) * 64 for n in some] for some in (keys, recovery, old)]
    made = crypto.Ring(raw[0], raw[1], serial, epoch)
    made.known.update(crypto.keyring(raw[2]))
    packed = keyring.pack(made, b"12345678")
    found = keyring.unpack(packed + bytes(4096 - len(packed)))
    assert found is not None
    assert found[1] == b"12345678"
    assert vars(found[0]) == vars(made)


@given(st.binary(min_size=1088, max_size=1088))
def test_noise_on_storage_is_no_ring(data: bytes) -> None:
    assert keyring.unpack(b"FKY1" + data) is None
