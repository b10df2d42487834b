"""What happens by the clock: a table of (name, seconds, method) for APScheduler. No logic here."""

import datetime
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from fleetd.errors import FleetError
from fleetd.logs import get_logger

log = get_logger(__name__)

CLOCK_SECONDS = 1.0  # how soon a clock that was set back is noticed


class Job(NamedTuple):
    """Runs `method` every `seconds`, and again at once as long as it answers that there was work."""

    name: str
    seconds: float
    method: Callable[[], bool]


class Jobs:
    """The scheduler. A job never runs twice at a time; its failures are logged and it is tried again."""

    def __init__(self, table: Sequence[Job], leads: Callable[[], bool] = lambda: True) -> None:
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a job that still runs is no news
        self._table = table
        self._leads = leads  # of several processes on one database only one runs jobs
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(max(2, len(table)))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=datetime.UTC,
        )
        self._stopping = False
        self._stopped = threading.Event()
        self.failures: dict[str, str] = {}

    def start(self) -> None:
        """Begins; every job runs for the first time at once."""
        for job in self._table:
            self._scheduler.add_job(
                self._run,
                "interval",
                args=[job],
                seconds=job.seconds,
                id=job.name,
                next_run_time=datetime.datetime.now(datetime.UTC),
            )
        self._scheduler.start()
        threading.Thread(target=self._watch_clock, name="jobs-clock", daemon=True).start()

    def wake(self, name: str) -> None:
        """Runs a job now instead of at its next turn."""
        if self._stopping or not self._scheduler.running:
            return
        try:
            self._scheduler.modify_job(name, next_run_time=datetime.datetime.now(datetime.UTC))
        except JobLookupError:
            return

    def stop(self) -> None:
        """Waits for what runs and starts nothing more."""
        self._stopping = True
        self._stopped.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def _watch_clock(self) -> None:
        """Wakes every job when the clock was set back: the scheduler would wait until it has caught up."""
        ahead = time.time() - time.monotonic()
        while not self._stopped.wait(CLOCK_SECONDS):
            before, ahead = ahead, time.time() - time.monotonic()
            if ahead < before - CLOCK_SECONDS / 2:
                log.warning("clock_set_back", seconds=round(before - ahead, 1))
                for job in self._table:
                    self.wake(job.name)

    def _run(self, job: Job) -> None:
        try:
            while not self._stopping and self._leads() and job.method():
                pass
            self.failures.pop(job.name, None)
        except FleetError as error:
            if self.failures.get(job.name) != str(error):  # once, not every second
                log.warning("job_waits", job=job.name, error=str(error))
            self.failures[job.name] = str(error)
        except Exception as error:  # the next turn must come whatever happened
            self.failures[job.name] = repr(error)
            log.error("job_failed", job=job.name, exc_info=True)  # noqa: G201  # structlog's own way
