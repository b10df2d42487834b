"""What lies at the broker, and when: order, sessions, failures, and who still needs what."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetd.delivery import CHUNK, DESIRED_CHUNK, Delivery
from fleetd.errors import BrokerError
from fleetd.protocol.limits import BLOCK_BYTES, DOWN_BYTES
from fleetd.protocol.messages import COMMAND, DESIRED
from fleetd.protocol.topics import BlobTopic, CameraTopic, ReleaseTopic, parse_topic
from tests.integration.update_rig import PREFIX, Camera, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.release(5)
    yield rig
    rig.close()


@pytest.fixture
def cam(rig: Rig) -> Camera:
    return rig.cameras("cam-1")[0]


def start(rig: Rig, release: str = "model-5", target: str = "all") -> int:
    return rig.ota.start_rollout(release, target, actor="ann").id


def deliver(rig: Rig) -> int:
    """Steps until nothing is left to do; how many there were."""
    steps = 0
    while rig.delivery.step():
        steps += 1
        assert steps < 100
    return steps


def kinds(rig: Rig) -> list[str]:
    """What was published, in order, each kind once for a run of it."""
    found: list[str] = []
    for name, payload, _ in rig.broker.log:
        topic = parse_topic(name, PREFIX)
        assert topic is not None
        kind = {BlobTopic: "block", ReleaseTopic: "manifest"}.get(type(topic), "")
        kind = kind or topic.channel  # type: ignore[union-attr]  # a CameraTopic
        kind = kind if payload else f"no {kind}"
        if not found or found[-1] != kind:
            found.append(kind)
    return found


def test_nothing_is_done_before_the_broker_is_there(rig: Rig, cam: Camera) -> None:
    start(rig)
    assert not Delivery(rig.store, rig.broker, lambda: rig.now, PREFIX).step()
    assert rig.broker.log == []


def test_blocks_and_manifest_are_there_before_the_desired_state_that_names_them(
    rig: Rig, cam: Camera
) -> None:
    start(rig)
    deliver(rig)
    assert kinds(rig) == ["block", "manifest", "desired"]
    assert rig.broker.has("model-5", rig.manifests["model-5"])
    assert all(retain for _, _, retain in rig.broker.log)


def test_every_block_can_be_checked_from_the_manifest_down(rig: Rig, cam: Camera) -> None:
    start(rig)
    deliver(rig)
    manifest = rig.broker.retained[f"{PREFIX}/_release/model-5"]
    assert hashlib.sha256(manifest).hexdigest() == cam.desired["digest"]
    (encoding,) = rig.manifests["model-5"].encodings
    index = b""
    for digest in encoding.index:
        block = rig.broker.retained[f"{PREFIX}/_blob/{digest}/0"]
        assert hashlib.sha256(block).hexdigest() == digest
        index += block
    whole = b""
    for n in range(encoding.blocks):
        block = rig.broker.retained[f"{PREFIX}/_blob/{encoding.sha256}/{n}"]
        assert len(block) <= BLOCK_BYTES
        assert hashlib.sha256(block).digest() == index[32 * n : 32 * n + 32]
        whole += block
    assert hashlib.sha256(whole).hexdigest() == encoding.sha256
    assert len(rig.broker.blobs()) == encoding.blocks + len(encoding.index)


def test_a_large_release_goes_out_in_bounded_pieces(rig: Rig, cam: Camera) -> None:
    rig.release(6, content=bytes(range(256)) * 4096)
    start(rig, "model-6")
    deliver(rig)
    assert len(rig.broker.blobs()) > 4 * CHUNK
    assert rig.broker.most_waiting == CHUNK
    assert rig.broker.has("model-6", rig.manifests["model-6"])


def test_one_copy_serves_however_many_cameras(rig: Rig) -> None:
    names = [f"cam-{n}" for n in range(40)]
    rig.cameras(*names)
    start(rig)
    deliver(rig)
    blocks = [name for name, _, _ in rig.broker.log if isinstance(parse_topic(name, PREFIX), BlobTopic)]
    assert len(blocks) == len(set(blocks))
    assert all(rig.broker.desired(name)["release"] == "model-5" for name in names)


def test_what_is_there_is_not_published_again(rig: Rig, cam: Camera) -> None:
    start(rig)
    deliver(rig)
    before = len(rig.broker.log)
    assert deliver(rig) == 0
    assert len(rig.broker.log) == before


def test_a_new_session_gets_everything_again(rig: Rig) -> None:
    one, two = rig.cameras("cam-1", "cam-2")
    start(rig, target="id=cam-1")
    with rig.database.transaction() as work:
        work.rollouts.set_config(two.id, {"fps": 3}, rig.now)
    deliver(rig)
    expected = dict(rig.broker.retained)
    rig.broker.forget()
    rig.connect()
    deliver(rig)
    assert rig.broker.retained == expected
    assert (one.desired["release"], two.desired["release"], two.desired["config"]) == (
        "model-5",
        None,
        {"fps": 3},
    )


def test_a_session_that_begins_while_publishing_gets_everything_too(rig: Rig, cam: Camera) -> None:
    """The broker restarts in the middle; what it took before is gone though it was acknowledged."""
    start(rig)
    publish = rig.broker.publish

    def interrupted(topic: str, payload: bytes, *, retain: bool) -> None:
        if rig.broker.published == 3:
            rig.broker.forget()
            rig.connect()
        publish(topic, payload, retain=retain)

    rig.broker.publish = interrupted  # type: ignore[method-assign]
    deliver(rig)
    assert rig.broker.has("model-5", rig.manifests["model-5"])
    assert cam.desired["release"] == "model-5"


def test_while_the_broker_is_away_nothing_is_noted_as_sent(rig: Rig, cam: Camera) -> None:
    start(rig)
    for trouble in ("down", "deaf"):
        setattr(rig.broker, trouble, True)
        with pytest.raises(BrokerError):
            rig.delivery.step()
        setattr(rig.broker, trouble, False)
        with rig.database.reading() as work:
            assert work.releases.published() == {}
            assert [one.sent_generation for one in work.rollouts.all_desired(unsent_only=False)] == [0]
    deliver(rig)
    assert rig.broker.has("model-5", rig.manifests["model-5"])
    assert cam.desired["generation"] == 1


def test_a_desired_state_waits_for_its_release_and_others_do_not(rig: Rig) -> None:
    one, two = rig.cameras("cam-1", "cam-2")
    rig.release(6)
    start(rig, "model-5", "id=cam-1")
    start(rig, "model-6", "id=cam-2")
    with rig.database.reading() as work:
        assert work.rollouts.open_releases() == {"model-5", "model-6"}
    rig.delivery.step()
    assert one.desired["release"] == "model-5"
    assert two.desired == {}
    rig.delivery.step()
    assert two.desired["release"] == "model-6"
    assert rig.broker.has("model-6", rig.manifests["model-6"])


def test_an_older_generation_that_was_read_before_a_change_is_not_the_last_word(
    rig: Rig, cam: Camera
) -> None:
    number = start(rig)
    publish = rig.broker.publish

    def cancelled_meanwhile(topic: str, payload: bytes, *, retain: bool) -> None:
        publish(topic, payload, retain=retain)
        if topic.endswith("/down/desired") and json.loads(payload)["generation"] == 1:
            rig.ota.cancel(number, actor="ann")

    rig.broker.publish = cancelled_meanwhile  # type: ignore[method-assign]
    deliver(rig)
    assert (cam.desired["generation"], cam.desired["release"]) == (2, None)
    with rig.database.reading() as work:
        assert work.rollouts.all_desired(unsent_only=True) == []


def test_blocks_stay_while_a_camera_may_still_come_for_them_and_go_afterwards(rig: Rig) -> None:
    one, two = rig.cameras("cam-1", "cam-2")
    two.disconnect()
    number = start(rig)
    rig.settle()
    one.act()
    rig.settle()
    assert rig.broker.has("model-5", rig.manifests["model-5"])
    rig.ota.cancel(number, actor="ann")
    rig.settle()
    assert rig.broker.blobs() == set()
    assert f"{PREFIX}/_release/model-5" not in rig.broker.retained
    assert two.desired["release"] is None
    with rig.database.reading() as work:
        assert work.releases.published() == {}
    assert kinds(rig)[-3:] == ["desired", "no manifest", "no block"], "first the camera hears of it"


def test_blocks_that_another_release_shares_are_left(rig: Rig) -> None:
    """Going back to an older content is a newer release with the same blocks."""
    content = b"the same model " * 2000
    rig.release(6, content=content)
    rig.release(7, content=content)
    rig.cameras("cam-1", "cam-2")
    first = start(rig, "model-6", "id=cam-1")
    rig.settle()
    second = start(rig, "model-7", "id=cam-2")
    rig.settle()
    rig.ota.cancel(first, actor="ann")
    rig.settle()
    assert f"{PREFIX}/_release/model-6" not in rig.broker.retained
    assert rig.broker.has("model-7", rig.manifests["model-7"])
    rig.ota.cancel(second, actor="ann")
    rig.settle()
    assert rig.broker.blobs() == set()


def test_a_release_that_is_needed_again_while_it_is_cleared_is_published_again(rig: Rig, cam: Camera) -> None:
    number = start(rig)
    rig.settle()
    rig.ota.cancel(number, actor="ann")
    publish = rig.broker.publish

    def wanted_again(topic: str, payload: bytes, *, retain: bool) -> None:
        publish(topic, payload, retain=retain)
        if topic.endswith("_release/model-5") and not payload:
            rig.broker.publish = publish  # type: ignore[method-assign]
            start(rig)

    rig.broker.publish = wanted_again  # type: ignore[method-assign]
    rig.settle()
    assert rig.broker.has("model-5", rig.manifests["model-5"])
    cam.act()
    assert cam.running[0] == "model-5"


def test_what_was_half_cleared_when_the_broker_failed_is_published_again_when_needed(
    rig: Rig, cam: Camera
) -> None:
    rig.release(6, content=bytes(range(256)) * 4096)
    number = start(rig, "model-6")
    rig.settle()
    rig.ota.cancel(number, actor="ann")
    publish, cleared = rig.broker.publish, 0

    def failing(topic: str, payload: bytes, *, retain: bool) -> None:
        nonlocal cleared
        cleared += not payload
        rig.broker.deaf = cleared > CHUNK
        publish(topic, payload, retain=retain)

    rig.broker.publish = failing  # type: ignore[method-assign]
    with pytest.raises(BrokerError):
        rig.settle()
    rig.broker.publish, rig.broker.deaf = publish, False  # type: ignore[method-assign]
    assert not rig.broker.has("model-6", rig.manifests["model-6"])
    start(rig, "model-6")
    rig.settle()
    assert rig.broker.has("model-6", rig.manifests["model-6"])


def test_thousands_of_desired_states_go_out_in_pieces(rig: Rig) -> None:
    count = DESIRED_CHUNK + 20
    with rig.database.transaction() as work:
        for n in range(count):
            camera = work.cameras.add(f"many-{n}", None, rig.now)
            work.rollouts.set_config(camera.id, {}, rig.now)
    deliver(rig)
    assert rig.broker.most_waiting == DESIRED_CHUNK
    assert len(rig.broker.retained) == count


def test_what_is_sent_is_what_the_contract_says(rig: Rig, cam: Camera) -> None:
    start(rig)
    rig.registry.send_command("cam-1", "identify", args={"seconds": 5}, ttl_s=60, actor="ann")
    deliver(rig)
    (desired,) = (payload for name, payload, _ in rig.broker.log if name.endswith("/down/desired"))
    assert DESIRED.validate_json(desired)["generation"] == 1
    assert len(desired) < DOWN_BYTES
    (command,) = (entry for entry in rig.broker.log if "/down/cmd/" in entry[0])
    assert parse_topic(command[0], PREFIX) == CameraTopic("cam-1", "down", "cmd/identify")
    assert not command[2], "a command is never retained"
    assert COMMAND.validate_json(command[1])["args"] == {"seconds": 5}


def test_a_command_is_sent_once_and_its_time_runs_from_when_it_was_asked_for(rig: Rig, cam: Camera) -> None:
    rig.broker.down = True
    number = rig.registry.send_command("cam-1", "identify", ttl_s=60, actor="ann")
    with pytest.raises(BrokerError):
        rig.delivery.step()
    rig.now += 40
    rig.broker.down = False
    deliver(rig)
    rig.connect()
    deliver(rig)
    (command,) = rig.broker.sent("cam-1/down/cmd/identify")
    assert (command["id"], command["ttl"], command["t"]) == (number, 20, rig.now)
    assert rig.registry.command(number)["state"] == "sent"


def test_a_command_that_is_too_old_is_not_sent(rig: Rig, cam: Camera) -> None:
    rig.broker.down = True
    rig.registry.send_command("cam-1", "identify", ttl_s=60, actor="ann")
    rig.now += 61
    rig.broker.down = False
    assert deliver(rig) == 0
    assert rig.broker.sent("cam-1/down/cmd/identify") == []
