"""Jobs run by the clock, also when somebody sets it."""

import datetime
import time
from typing import Any

import pytest

from fleetd.jobs import Job, Jobs


def test_a_clock_that_is_set_back_does_not_stop_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression (f): the scheduler would wait until the clock has caught up, here for four years."""
    shift = 0.0
    real = time.time

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls.fromtimestamp(real() + shift, tz)

    monkeypatch.setattr("apscheduler.schedulers.base.datetime", Clock)
    monkeypatch.setattr("fleetd.jobs.datetime.datetime", Clock)
    monkeypatch.setattr("fleetd.jobs.time.time", lambda: real() + shift)
    monkeypatch.setattr("fleetd.jobs.CLOCK_SECONDS", 0.1)
    runs: list[float] = []

    def work() -> bool:
        runs.append(real())
        return False

    jobs = Jobs([Job("work", 0.1, work)])
    jobs.start()
    try:
        _until(runs, 2)
        shift = -4 * 365 * 86400.0
        _until(runs, len(runs) + 5)
    finally:
        jobs.stop()


def _until(runs: list[float], most: int) -> None:
    deadline = time.monotonic() + 10
    while len(runs) < most:
        assert time.monotonic() < deadline, "the job stands still"
        time.sleep(0.01)
