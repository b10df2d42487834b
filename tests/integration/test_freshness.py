"""fleetd's side of freshness: nonces are found while landing, and answered as the camera's own code believes it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from camera_agent import protocol
from camera_agent.fresh import Fresh
from fleetd.errors import UnknownCameraError
from fleetd.freshness import Freshness
from fleetd.ports import Inbound
from fleetd.store.arrivals import Arrival
from tests.agent.fake_stream import FakeHal
from tests.integration.api_rig import BOOT, Rig, running_rig

NONCE = "5e6f708192a3b4c5d6e7f8091a2b3c4d"


class Link:
    """What was published, by topic."""

    def __init__(self) -> None:
        self.sent: dict[str, bytes] = {}

    def acknowledge(self, batch: Sequence[Inbound]) -> None:
        raise AssertionError

    def publish_once(self, topic: str, payload: bytes) -> None:
        self.sent[topic] = payload


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        rig.enrol("cam-1", "cam-2")
        yield rig


@pytest.fixture
def freshness(rig: Rig) -> Freshness:
    return Freshness(rig.store, lambda: rig.now)


def landed(rig: Rig, camera: str, seq: int, *, retained: bool = False, **body: Any) -> dict[str, str]:
    message = {"boot": BOOT, "seq": seq, "up_ms": 5, "online": True, **body}
    return rig.landing.write([Arrival(camera, "status", "", message, rig.now, retained=retained)]).nonces


def test_a_nonce_is_found_once_and_not_in_what_the_broker_replays(rig: Rig) -> None:
    assert landed(rig, "cam-1", 1, nonce=NONCE) == {"cam-1": NONCE}
    assert landed(rig, "cam-1", 1, nonce=NONCE) == {}, "a repetition"
    assert landed(rig, "cam-1", 2) == {}
    assert landed(rig, "cam-1", 3, retained=True, nonce=NONCE) == {}
    assert landed(rig, "stranger", 1, nonce=NONCE) == {}


def test_the_answer_is_believed_by_the_camera_that_has_the_key(rig: Rig, freshness: Freshness) -> None:
    key = freshness.new_key("cam-1", actor="ada")
    with rig.store.transaction() as work:
        camera = work.cameras.get("cam-1")
        assert camera is not None
        for _ in range(3):
            work.rollouts.set_config(camera.id, {"scores": True}, rig.now)
    hal, link = FakeHal(), Link()
    fresh = Fresh(hal, "cam-1", key)
    fresh._nonce = NONCE
    assert freshness.answer({"cam-1": NONCE, "cam-2": NONCE, "cam-9": NONCE}, link, "fleet/v1") == 1
    assert list(link.sent) == ["fleet/v1/cam-1/down/fresh"]
    fresh._on_answer(None, None, protocol.parse_fresh(memoryview(link.sent["fleet/v1/cam-1/down/fresh"])))
    assert (fresh.generation, hal.clock) == (3, int(rig.now))


def test_a_new_key_ends_the_one_before(rig: Rig, freshness: Freshness) -> None:
    before, after = (freshness.new_key("cam-1", actor="ada") for _ in range(2))
    assert before != after
    with rig.store.reading() as work:
        assert work.cameras.fresh_keys(["cam-1"]) == {"cam-1": (after, 0)}
    assert [entry["action"] for entry in rig.access.audit()].count("camera.fresh-key") == 2
    assert all(after not in str(entry) for entry in rig.access.audit())
    with pytest.raises(UnknownCameraError):
        freshness.new_key("cam-9", actor="ada")


def test_thousands_ask_at_once_and_one_broken_connection_spoils_no_other(
    rig: Rig, freshness: Freshness
) -> None:
    names = [f"cam-{n}" for n in range(10, 1210)]
    rig.enrol(*names)
    with rig.store.transaction() as work:
        for name in names:
            work.cameras.set_fresh_key(name, "ab" * 32)

    class Flaky(Link):
        def publish_once(self, topic: str, payload: bytes) -> None:
            if "cam-10/" in topic:
                raise OSError("gone")
            super().publish_once(topic, payload)

    link = Flaky()
    assert freshness.answer(dict.fromkeys(names, NONCE), link, "fleet/v1") == 1200
    assert len(link.sent) == 1199
