"""A model on trial first answers its golden frames, through whatever the camera computes with."""

import struct
from typing import Any

import pytest

from tests.agent.core_kit import Bench, CoreHal, model_release

FRAMES = (b"\x80" * 12, bytes(range(12)))
ANSWERS = (0.1, 0.8, 0.1)  # what core_kit's models answer


def golden(answers: tuple[float, ...] = ANSWERS, frames: tuple[bytes, ...] = FRAMES) -> bytes:
    """golden.bin, written down a second time."""
    head = struct.pack("<4sHHII", b"FGF1", len(frames), len(answers), len(frames[0]), 0)
    return head + struct.pack(f"<{len(answers)}f", *answers) * len(frames) + b"".join(frames)


def updated(**facts: Any) -> Bench:
    """A camera with a confirmed model to which another one was pushed."""
    bench = Bench(interval_ms=200).start().install(model_release("m-1"))
    bench.desire(model_release("m-2", 2, **facts), 2)
    return bench.run(15)


def outcome(bench: Bench) -> tuple[str, str | None, str]:
    last = bench.sent("update")[-1]
    return last["state"], last.get("reason"), last.get("detail", "")


def test_a_model_that_answers_its_golden_frames_is_confirmed() -> None:
    bench = updated(golden=golden())
    assert outcome(bench)[0] == "confirmed"
    assert bench.hal.tensors == list(FRAMES), "every frame once, byte by byte"


def test_a_model_that_answers_differently_never_sees_a_live_picture() -> None:
    bench = updated(golden=golden((0.1, 0.85, 0.1)))
    state, reason, detail = outcome(bench)
    assert (state, reason) == ("reverted", "golden-mismatch")
    assert detail == "frame 0, output 1: 0.8000, not 0.8500"
    assert {message["release"] for message in bench.sent("result")} == {"m-1"}
    assert bench.status()["release"]["id"] == "m-1"


@pytest.mark.parametrize(("off", "state"), [(0.019, "confirmed"), (0.021, "reverted")])
def test_the_tolerance_is_the_releases(off: float, state: str) -> None:
    assert outcome(updated(golden=golden((0.1 + off, 0.8, 0.1)), tolerance=0.02))[0] == state


def test_not_a_number_is_no_answer() -> None:
    bench = updated(golden=golden(), answers=[0.1, float("inf") - float("inf"), 0.1], tolerance=1.0)
    assert outcome(bench)[:2] == ("reverted", "golden-mismatch")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (golden((0.5, 0.5)), "2 answers, 3 outputs"),
        (golden(frames=(bytes(11), bytes(11))), "frames of 11 bytes, input of 12"),
        (b"FGF2" + golden()[4:], "golden.bin is damaged"),
        (golden()[:-3], "golden.bin is cut short"),
    ],
)
def test_frames_that_do_not_fit_end_the_trial(data: bytes, complaint: str) -> None:
    state, reason, detail = outcome(updated(golden=data))
    assert (state, detail) == ("reverted", complaint)
    assert reason in ("golden-mismatch", "storage-error")


def test_a_confirmed_model_is_not_tried_again_at_every_start() -> None:
    bench = updated(golden=golden())
    bench.hal.tensors.clear()
    bench.reboot().run(5)
    assert bench.hal.tensors == []


def test_a_camera_that_dies_in_the_trial_tries_the_frames_again() -> None:
    bench = Bench(interval_ms=200).start().install(model_release("m-1"))
    hal: CoreHal = bench.hal
    bench.desire(model_release("m-2", 2, golden=golden()), 2)
    while not hal.tensors:
        bench.run(0.005)
    hal.tensors.clear()
    assert bench.reboot().run(10).updates()[-1] == ("confirmed", None)
    assert hal.tensors == list(FRAMES)
