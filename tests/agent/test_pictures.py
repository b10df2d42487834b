"""Pictures from a camera: on command, of what the model is not sure about, and never at the cost of what matters."""

import hashlib
from typing import Any

import pytest

from camera_agent import snapshot
from fleetd.protocol import limits, messages
from tests.agent.core_kit import Bench, CoreHal, model_release


def pictures(bench: Bench) -> dict[str, bytes]:
    """Every picture that was sent, put together; each piece fits the contract."""
    found: dict[str, dict[int, bytes]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for channel, message in bench.messages:
        if channel.startswith("image/"):
            _, image, n = channel.split("/")
            data = message["data"]
            facts[image] = {key: value for key, value in message.items() if key != "data"}
            messages.IMAGE.validate_python(facts[image])
            found.setdefault(image, {})[int(n)] = data
    whole = {}
    for image, pieces in found.items():
        assert sorted(pieces) == list(range(facts[image]["pieces"]))
        whole[image] = b"".join(pieces[n] for n in sorted(pieces))
        assert len(whole[image]) == facts[image]["size"]
        assert hashlib.sha256(whole[image]).hexdigest() == facts[image]["sha256"]
    return whole


def ask(bench: Bench, id_: str = "c-1", **args: Any) -> dict[str, Any]:
    """Sends the command and answers the reply."""
    bench.down("cmd/snapshot", {"id": id_, "t": 1, "ttl": 60, "args": args})
    bench.run(20)
    return next(reply for reply in bench.sent("reply/snapshot") if reply["id"] == id_)


@pytest.fixture
def bench() -> Bench:
    return Bench().start().install(model_release("m-1")).run(12)


def test_a_picture_on_command_comes_with_what_the_model_made_of_it(bench: Bench) -> None:
    reply = ask(bench, quality=55)
    assert reply["ok"] is True
    assert reply["data"]["size"] == 5000
    assert pictures(bench) == {reply["data"]["image"]: bytes([55]) * 5000}
    piece = next(message for channel, message in bench.messages if channel.startswith("image/"))
    assert (piece["why"], piece["label"], piece["score"], piece["release"]) == (
        *("command", "blue ball", 0.8),
        "m-1",
    )


def test_a_camera_without_a_model_has_pictures_too() -> None:
    bench = Bench().start().run(5)
    assert ask(bench)["ok"] is True
    assert len(pictures(bench)) == 1


@pytest.mark.parametrize("has_model", [True, False])
def test_a_camera_without_pictures_says_so(has_model: bool) -> None:
    bench = Bench().start().run(5)
    if has_model:
        bench.install(model_release("m-1")).run(12)
    bench.hal.camera_error = RuntimeError("detached")
    assert ask(bench)["reason"] == "no-picture"


def test_a_picture_that_is_too_large_is_tried_at_a_lower_quality_and_else_refused(bench: Bench) -> None:
    bench.hal.picture = lambda quality: bytes(quality * 3000)
    reply = ask(bench, "c-1")
    assert reply["data"]["size"] == 90_000
    bench.hal.picture = lambda quality: bytes(quality * 30_000)
    assert ask(bench, "c-2")["reason"] == "too-large"


def test_one_picture_at_a_time(bench: Bench) -> None:
    bench.down("cmd/snapshot", {"id": "c-1", "t": 1, "ttl": 60})
    bench.down("cmd/snapshot", {"id": "c-2", "t": 1, "ttl": 60})
    bench.run(20)
    reasons = {reply["id"]: reply.get("reason") for reply in bench.sent("reply/snapshot")}
    assert reasons == {"c-1": None, "c-2": "busy"}


def test_an_outbox_that_fleetd_does_not_empty_ends_it_in_time(bench: Bench) -> None:
    bench.receipts = False
    for _ in range(40):
        bench.agent.outbox.put("event", {"kind": "note"})
    bench.down("cmd/snapshot", {"id": "c-1", "t": 1, "ttl": 60})
    bench.run(150)
    assert pictures(bench) == {}
    assert [reply["reason"] for reply in bench.sent("reply/snapshot")] == ["no-room"]


def test_what_the_model_is_not_sure_about_is_sent_within_the_budget() -> None:
    bench = Bench(snapshot_below=0.9, snapshots_per_day=2).start().install(model_release("m-1"))
    bench.run(30)
    assert len(pictures(bench)) == 1, "one a minute at most"
    bench.run(200)
    sent = [message for channel, message in bench.messages if channel.endswith("/0")]
    assert [piece["why"] for piece in sent] == ["low-confidence"] * 2
    assert bench.sent("reply/snapshot") == []


def test_a_model_that_is_sure_sends_none() -> None:
    bench = Bench(snapshot_below=0.5).start().install(model_release("m-1")).run(30)
    assert pictures(bench) == {}


def test_a_firmware_that_cannot_compress_costs_one_picture(bench: Bench) -> None:
    def fails(_quality: int) -> bytes:
        raise MemoryError

    bench.hal.picture = fails
    bench.down("cmd/snapshot", {"id": "c-1", "t": 1, "ttl": 60})
    bench.run(30)
    assert [reply["reason"] for reply in bench.sent("reply/snapshot")] == ["no-picture"]
    assert bench.results()[-1]["frame"] > 20, "it goes on classifying"


def test_images_make_room_for_everything_else() -> None:
    bench = Bench(CoreHal(), outbox_messages=8).start().run(5)
    box = bench.agent.outbox
    bench.hal.network = False
    bench.run(1)
    box.put("image/a/0", {"size": 1, "pieces": 1, "sha256": "0" * 64, "why": "command"}, b"x")
    for _ in range(8):
        box.put("telemetry", {})
    assert box.dropped["image"] == 1


def test_both_sides_have_the_same_limit() -> None:
    assert limits.IMAGE_BYTES == snapshot.IMAGE_BYTES
    assert -(-snapshot.IMAGE_BYTES // snapshot._PIECE) <= limits.IMAGE_PIECES
