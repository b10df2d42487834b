"""Is this the newest? A camera asks, fleetd proves it; a broker that brings old things back or holds new ones shows."""

import json
from pathlib import Path
from typing import Any

import pytest

from camera_agent.fresh import mac
from fleetd.protocol.fresh import answer_mac
from tests.agent.core_kit import CAMERA, Bench, model_release
from tests.agent.update_kit import Release

KEY = "c0ffee" + "0" * 58
NOW = 1_790_000_000
GOLDEN = Path(__file__).parents[1] / "contract" / "golden" / "down" / "fresh.json"


class Fleet:
    """fleetd's side of a bench: answers nonces truthfully, unless told not to."""

    def __init__(self, **settings: Any) -> None:
        self.bench = Bench(fresh_key=KEY, **settings).start()
        self.generation = 0
        self.keys = 0
        self.answers = True
        self.changes: dict[str, Any] = {}  # of an answer, after its mac was made
        self.asked: list[str] = []
        self._seen = 0
        self.online()

    def online(self) -> None:
        self.bench.run(1)
        status = json.dumps({"online": True, "instance": "x"}).encode()
        self.bench.broker.retained[b"fleet/v1/_fleetd/status"] = status
        self.bench.broker.send(b"fleet/v1/_fleetd/status", status, retain=True)

    def run(self, seconds: float) -> "Fleet":
        for _ in range(max(1, int(seconds * 2))):
            self.bench.run(0.5)
            for status in self.bench.sent("status")[self._seen :]:
                self._seen += 1
                if "nonce" in status:
                    self.asked.append(status["nonce"])
                    if self.answers:
                        self.answer(status["nonce"])
        return self

    def answer(self, nonce: str, key: str = KEY) -> None:
        made = answer_mac(bytes.fromhex(key), CAMERA, nonce, NOW, self.generation, self.keys)
        body = {"nonce": nonce, "t": NOW, "generation": self.generation, "keys": self.keys, "mac": made}
        self.bench.down("fresh", {**body, **self.changes}, qos=0)

    def desire(self, release: Release | None, generation: int) -> "Fleet":
        """Honestly: what is desired is also what fleetd says is the newest."""
        self.generation = generation
        self.bench.desire(release, generation)
        return self

    def problems(self) -> set[str]:
        return set(self.bench.status()["problems"]) & {"stale", "stale-unanswered"}


def test_both_sides_compute_what_the_golden_message_says() -> None:
    golden = json.loads(GOLDEN.read_text())
    text = f"fleetd-fresh-1|cam-07|{golden['nonce']}|{golden['t']}|{golden['generation']}|{golden['keys']}"
    key = bytes.fromhex("0f" * 32)
    assert mac(key, text.encode()) == golden["mac"]
    assert answer_mac(key, "cam-07", golden["nonce"], 1790000000, 5, 2) == golden["mac"]


def test_an_honest_fleet_is_fresh_and_the_camera_knows_the_time() -> None:
    fleet = Fleet().run(2).desire(model_release("model-1", 1), 3).run(15)
    assert fleet.bench.updates()[-1] == ("confirmed", None)
    assert fleet.problems() == set()
    assert fleet.bench.hal.clock == NOW
    assert "nonce" not in fleet.bench.status()


def test_a_clock_that_is_trusted_is_left_alone() -> None:
    fleet = Fleet()
    fleet.bench.hal.clock = 1_800_000_000
    fleet.run(3)
    assert fleet.bench.hal.clock == 1_800_000_000


def test_every_connection_asks_anew_and_so_does_every_hour() -> None:
    fleet = Fleet().run(3)
    fleet.bench.broker.stream.eof = True
    fleet.run(20)
    assert len(set(fleet.asked)) == 2
    fleet.bench.hal.now += 3_600_000
    fleet.run(3)
    assert len(set(fleet.asked)) == 3


def test_a_desired_state_that_was_taken_back_is_not_acted_on() -> None:
    """The operator cancelled model-9; the broker brings it back when the camera starts again."""
    fleet = Fleet()
    fleet.generation = 12  # the cancel
    fleet.bench.desire(model_release("model-9", 9), 11)
    fleet.run(30)
    assert fleet.bench.updates() == []
    fleet.run(60)
    assert fleet.problems() == {"stale"}
    fleet.desire(model_release("model-10", 10), 13).run(20)
    assert fleet.bench.updates()[-1] == ("confirmed", None)
    assert fleet.problems() == set()


def test_a_desired_state_that_is_held_back_shows() -> None:
    fleet = Fleet().run(2).desire(model_release("model-1", 1), 3).run(15)
    fleet.generation = 4  # and nothing of it arrives
    fleet.bench.broker.stream.eof = True
    fleet.run(80)
    assert fleet.problems() == {"stale"}
    assert fleet.bench.status()["release"]["id"] == "model-1"


def test_a_broker_that_holds_back_the_answers_shows_and_stops_nothing() -> None:
    fleet = Fleet()
    fleet.answers = False
    fleet.desire(model_release("model-1", 1), 3).run(25)
    assert fleet.bench.updates()[-1] == ("confirmed", None), "updates work without answers"
    fleet.run(60)
    assert fleet.problems() == {"stale-unanswered"}
    fleet.answers = True
    fleet.bench.hal.now += 300_000
    fleet.run(5)
    assert fleet.problems() == set()


def test_without_fleetd_nothing_is_called_stale() -> None:
    fleet = Fleet()
    fleet.answers = False
    gone = json.dumps({"online": False, "instance": "x"}).encode()
    fleet.bench.broker.send(b"fleet/v1/_fleetd/status", gone, retain=True)
    fleet.run(200)
    assert fleet.problems() == set()


LIES: dict[str, dict[str, Any]] = {
    "an-older-generation": {"generation": 1},
    "a-newer-generation": {"generation": 99},
    "another-time": {"t": 1},
    "another-key-record": {"keys": 7},
    "another-nonce": {"nonce": "0" * 32},
    "a-mac-of-zeros": {"mac": "0" * 64},
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_was_changed_is_not_believed(lie: str) -> None:
    fleet = Fleet()
    fleet.changes = LIES[lie]
    fleet.run(90)
    assert fleet.problems() == {"stale-unanswered"}
    assert fleet.bench.hal.clock is None


@pytest.mark.parametrize("who", ["with-another-key", "of-an-earlier-connection", "twice"])
def test_an_answer_that_is_not_for_this_nonce_is_not_believed(who: str) -> None:
    fleet = Fleet()
    fleet.answers = False
    fleet.run(2)
    if who == "with-another-key":
        fleet.answer(fleet.asked[-1], "ab" * 32)
        fleet.run(90)
        assert fleet.problems() == {"stale-unanswered"}
    elif who == "of-an-earlier-connection":
        fleet.bench.broker.stream.eof = True
        fleet.run(10)
        assert len(set(fleet.asked)) == 2
        fleet.answer(fleet.asked[0])
        fleet.run(90)
        assert fleet.problems() == {"stale-unanswered"}
    else:
        fleet.answer(fleet.asked[-1])
        fleet.run(1)
        fleet.generation = 99
        fleet.answer(fleet.asked[-1])
        fleet.run(90)
        assert fleet.problems() == set()


def test_a_key_record_that_the_broker_does_not_announce_is_learnt_from_the_answer() -> None:
    fleet = Fleet()
    fleet.keys = 1
    fleet.run(3)
    assert fleet.bench.agent.updater._keys.newest == 1
