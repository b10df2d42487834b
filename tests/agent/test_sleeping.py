"""Duty cycle: when a camera sleeps, what it says before, and what keeps it awake."""

import json
from pathlib import Path

import pytest

from camera_agent.start import run
from tests.agent.core_kit import CAMERA, Bench, CoreHal, model_release


def asleep(bench: Bench) -> bool:
    return bool(bench.agent.is_over and bench.agent.asleep_s)


def test_a_camera_sleeps_after_its_time_and_says_for_how_long() -> None:
    bench = Bench(sleep_s=600, awake_s=30).start().run(25)
    assert not bench.agent.is_over
    bench.run(20)
    assert asleep(bench)
    bench.agent.stop()
    bench._collect()
    assert bench.status()["online"] is False
    assert bench.status()["network"]["asleep_s"] == 600
    assert all("asleep_s" not in status["network"] for status in bench.sent("status")[:-1])


def test_the_board_is_put_to_sleep_instead_of_being_restarted(tmp_path: Path) -> None:
    hal = CoreHal(folder=tmp_path)
    hal.network = False
    settings = {"camera": CAMERA, "host": "broker", "sleep_s": 600, "awake_s": 10}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert run(hal) is True
    assert hal.slept == [600]


def test_it_waits_for_receipts_but_not_for_ever() -> None:
    bench = Bench(sleep_s=600, awake_s=30)
    bench.receipts = False
    bench.start().run(80)
    assert not bench.agent.is_over
    assert asleep(bench.run(20))


def test_it_stays_awake_for_a_person_and_a_trial() -> None:
    bench = Bench(sleep_s=600, awake_s=10).start().run(5)
    bench.down("cmd/identify", {"id": "c-1", "t": 1, "ttl": 60, "args": {"seconds": 40}})
    bench.run(30)
    assert not bench.agent.is_over
    bench.agent._is_on_trial = lambda: True
    bench.run(40)
    assert not bench.agent.is_over


def test_without_the_setting_it_never_sleeps() -> None:
    assert not Bench().start().install(model_release("m-1")).run(200).agent.is_over


def test_fleetd_can_keep_it_awake() -> None:
    bench = Bench(sleep_s=600, awake_s=30).start().run(5)
    bench.desire(None, config={"sleep_s": 0})
    assert not bench.run(60).agent.is_over


@pytest.mark.parametrize(
    ("sleeps", "bites", "problem"),
    [(False, False, "sleep-unsupported"), (True, True, "sleep-needs-no-watchdog")],
)
def test_a_board_that_cannot_says_so_and_goes_on(sleeps: bool, bites: bool, problem: str) -> None:
    hal = CoreHal()
    hal.sleeps, hal.bites_asleep = sleeps, bites
    bench = Bench(hal, sleep_s=600, awake_s=10).start().run(40)
    assert not bench.agent.is_over
    assert problem in bench.status()["problems"]
