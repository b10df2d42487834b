"""Several processes land what one broker shares out, on either database, and are killed meanwhile."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleetd.simulator.thin import Counts, Load, ThinCamera, ThinFleet
from fleetd.store import tables
from fleetd.store.engine import SqlStore
from fleetd.store.leader import Leader
from tests.brokers import Mosquitto
from tests.faults.checker import check
from tests.faults.fleet import FleetProcess

CAMERAS = 8
KILLS = 3
WAIT_S = 120.0


def make(counts: Counts, port: int) -> list[ThinCamera]:
    load = Load(telemetry_s=1.0, results_s=0.1, repeat=0.05, bad=0.02, churn=0.005, repeat_after_s=2.0)
    return [
        ThinCamera(f"cam-{n}", load, counts, host="127.0.0.1", port=port, prefix="fleet/v1")
        for n in range(CAMERAS)
    ]


async def until(what: str, seconds: float, happened: object) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


async def disturb(fleet: FleetProcess, cameras: ThinFleet, chance: random.Random) -> None:
    """Lets cameras talk while workers, and once the whole service, are killed."""
    await cameras.start()
    for number in range(KILLS):
        before = cameras.counts.receipted
        await until(
            "nothing is stored any more", WAIT_S, lambda before=before: cameras.counts.receipted > before + 60
        )
        if number == 1:
            fleet.kill()  # its workers end with it
            fleet.start()
        else:
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(chance.choice(fleet.children()), signal.SIGKILL)
    before = cameras.counts.receipted
    await until("nothing is stored any more", WAIT_S, lambda: cameras.counts.receipted > before + 60)
    for camera in cameras.cameras:
        camera.hush()
    await until("receipts are missing", WAIT_S, lambda: cameras.waiting == 0)
    await cameras.stop()


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_whichever_worker_is_killed(
    database_url: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    store = SqlStore(database_url)
    with store.transaction() as work:
        for number in range(CAMERAS):
            work.cameras.add(f"cam-{number}", None, 0.0)
    fleet = FleetProcess(
        tmp_path,
        FLEETD_DATABASE=database_url,
        FLEETD_BROKER__HOST="127.0.0.1",
        FLEETD_BROKER__PORT=str(mosquitto.port),
        FLEETD_LANDING__WORKERS="2",
    )
    cameras = ThinFleet(lambda counts: make(counts, mosquitto.port))
    with fleet:
        asyncio.run(disturb(fleet, cameras, random.Random()))
        workers = set(fleet.children())
        assert fleet.stop() == 0, fleet.log_text()
    verdict = check(store, cameras.truths())
    assert verdict.violations == []
    assert verdict.receipted > KILLS * 60
    with store.connect(write=False) as connection:
        assert connection.execute(tables.results.select().limit(1)).first() is not None
    store.close()
    assert len(workers) == 2
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists(), "a worker outlived its service"


def test_one_process_leads_and_another_takes_over_when_it_dies(database_url: str) -> None:
    program = (
        "import sys, time; from fleetd import logs; logs.configure(level='error')\n"
        "from fleetd.store.engine import SqlStore; from fleetd.store.leader import Leader\n"
        "leader = Leader(SqlStore(sys.argv[1])); print(leader.leads(), flush=True); time.sleep(100)"
    )
    store = SqlStore(database_url)
    mine = Leader(store)
    with subprocess.Popen(
        [sys.executable, "-c", program, database_url], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "True\n"
            assert not mine.leads()
        finally:
            other.kill()
    deadline = time.monotonic() + 60
    while not mine.leads():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert mine.leads(), "for as long as it likes"
    third = Leader(store)
    assert not third.leads()
    mine.close()
    assert third.leads()
    third.close()
    store.close()
