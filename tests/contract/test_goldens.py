"""The golden messages, read by fleetd and by the camera's own code. Neither may drift from them."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from camera_agent import protocol
from camera_agent.outbox import Outbox
from fleetd.protocol import limits
from tests.agent.fake_stream import FakeHal
from tests.agent.micropython import Arch, run_device
from tests.contract.goldens import DOWN, FLEETD, FOLDER, bad_down, each, files, name_of

AGENT = {
    "desired": protocol.parse_desired,
    "ack": protocol.parse_ack,
    "fresh": protocol.parse_fresh,
    "cmd": protocol.parse_command,
    "daemon": protocol.parse_daemon_status,
}
ENVELOPE = ("boot", "seq", "up_ms", "t", "low")
DEVICE_SCRIPT = Path(__file__).parents[1] / "agent" / "device" / "read_goldens.py"


def test_there_are_goldens_for_every_message() -> None:
    assert {name_of(path) for path in files("up")} == set(FLEETD) - set(DOWN)
    assert {name_of(path) for path in files("down")} == set(DOWN)
    assert {name_of(path) for path in files("bad")} == set(FLEETD)


@each(files("up") + files("down"))
def test_fleetd_reads_every_field_of_a_golden_message(path: Path) -> None:
    """Equal, not only accepted: a field that fleetd does not know would be dropped unseen."""
    read = FLEETD[name_of(path)].validate_json(path.read_bytes())
    assert json.loads(json.dumps(read)) == json.loads(path.read_bytes())


@each(files("bad"))
def test_fleetd_refuses_a_bad_message(path: Path) -> None:
    with pytest.raises(ValidationError):
        FLEETD[name_of(path)].validate_json(path.read_bytes())


@each(files("up") + files("down"))
def test_golden_messages_are_within_the_limits(path: Path) -> None:
    most = limits.DOWN_BYTES if name_of(path) in DOWN else limits.UP_BYTES
    assert len(path.read_bytes()) <= most


# --- the camera's side ------------------------------------------------------------------------------------


def _as_agent_reads(path: Path) -> Any:
    """What the camera's parser must answer: what fleetd means, with every key there."""
    meant = FLEETD[name_of(path)].validate_json(path.read_bytes())
    match name_of(path):
        case "desired":
            return {"digest": None, "config": {}, "deadline": None, **meant}
        case "ack":
            return (meant["boot"], [list(pair) for pair in meant["seq"]])
        case "cmd":
            return {"args": {}, **meant}
        case "fresh":
            return meant
        case _:
            meant.pop("version", None)
            return {"t": None, "keys": 0, **meant}


@each(files("down"))
def test_the_camera_reads_a_golden_message_as_fleetd_means_it(path: Path) -> None:
    assert AGENT[name_of(path)](memoryview(path.read_bytes())) == _as_agent_reads(path)


@each(bad_down())
def test_the_camera_refuses_a_bad_message(path: Path) -> None:
    with pytest.raises(protocol.ProtocolError):
        AGENT[name_of(path)](memoryview(path.read_bytes()))


@each([path for path in files("up") if path.stem != "status-will"])
def test_the_camera_builds_the_golden_message_from_its_body(path: Path) -> None:
    golden = json.loads(path.read_bytes())
    hal = FakeHal()
    hal.now, hal.clock = golden["up_ms"], golden.get("t")
    outbox: Any = Outbox(hal, boot=golden["boot"])
    outbox._seq = golden["seq"] - 1
    channel = "reply/snapshot" if name_of(path) == "reply" else name_of(path)
    body = {key: value for key, value in golden.items() if key not in ENVELOPE}
    assert outbox.put(channel, body) == golden["seq"]
    built = json.loads(outbox.next(hal.now, False).payload)
    assert ("low" in built) == ("low" in golden)
    assert {**built, "low": 0} == {**golden, "low": 0}


def test_the_camera_builds_the_golden_last_will() -> None:
    golden = json.loads((FOLDER / "up" / "status-will.json").read_bytes())
    assert json.loads(protocol.will(golden["boot"])) == golden


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_micropython_reads_and_refuses_the_same_messages(arch: Arch) -> None:
    out = run_device(arch, DEVICE_SCRIPT, str(FOLDER), heapsize="64k").stdout
    answers = json.loads(out)
    for path in files("down"):
        expected = json.loads(json.dumps(_as_agent_reads(path)))
        assert answers["down/" + path.name] == expected, path.name
    refused = [answers[f"bad/{name_of(path)}/{path.name}"] for path in bad_down()]
    assert [type(answer) for answer in refused] == [str] * len(refused), refused
