"""Five thousand cameras on one mosquitto and one fleetd: telemetry every 30 s, then every connection is cut at once.

Prints memory, how long it takes until all are back and all they said is stored, and what the checker of the fault
tests finds in the database. Loopback only; the cameras run in this process and share the machine.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from fleetd.simulator.thin import Counts, Load, ThinCamera, ThinFleet
from fleetd.store.engine import SqlStore
from tests.brokers import Mosquitto
from tests.faults.checker import check
from tests.faults.fleet import FleetProcess

WAIT_S = 300.0


def memory_mb(pid: int | None) -> float:
    """Resident memory of a process now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def until(happened: Any, seconds: float = WAIT_S) -> float:
    """Waits for it; the seconds it took."""
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > seconds:
            raise SystemExit(f"not within {seconds:.0f} s: this measurement is worth nothing")
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def run(fleet: ThinFleet, broker: Mosquitto, service: FleetProcess, seconds: float) -> dict[str, Any]:
    counts, all_of_them = fleet.counts, len(fleet.cameras)
    figures: dict[str, Any] = {"cameras": all_of_them}
    began = time.monotonic()
    await fleet.start(per_second=2000)
    await until(lambda: counts.online == all_of_them)
    figures["all connected after s"] = round(time.monotonic() - began, 1)
    await asyncio.sleep(seconds)
    figures["before: broker MB"] = round(memory_mb(broker.pid), 1)
    figures["before: fleetd MB"] = round(memory_mb(service.pid), 1)
    stored = counts.receipted
    began = time.monotonic()
    fleet.storm()
    await asyncio.sleep(0.5)
    await until(lambda: counts.online == all_of_them)
    figures["all back after s"] = round(time.monotonic() - began, 1)
    cut = time.monotonic()
    highest = 0.0
    while fleet.waiting and time.monotonic() - cut < WAIT_S:
        highest = max(highest, memory_mb(service.pid))
        await asyncio.sleep(0.2)
        if fleet.waiting < all_of_them / 100:  # what has just been said is always on its way
            break
    figures["all stored after s"] = round(time.monotonic() - began, 1)
    figures["after: broker MB"] = round(memory_mb(broker.pid), 1)
    figures["after: fleetd MB, highest"] = round(max(highest, memory_mb(service.pid)), 1)
    figures["stored in the storm"] = counts.receipted - stored
    for camera in fleet.cameras:
        camera.hush()
    await until(lambda: fleet.waiting == 0)
    await fleet.stop()
    return {**figures, "sent": counts.sent, "receipted": counts.receipted, "dropped": counts.dropped}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cameras", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=45.0, help="of ordinary work before the storm")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="fleetd-storm-") as name,
        Mosquitto(Path(name) / "mosquitto") as broker,
    ):
        folder = Path(name)
        service = FleetProcess(
            folder,
            FLEETD_BROKER__HOST="127.0.0.1",
            FLEETD_BROKER__PORT=str(broker.port),
            FLEETD_LANDING__RECEIPT_SECONDS="2",
        )
        with service:
            deadline = time.monotonic() + 60
            while "fleetd_started" not in service.log_text():
                if time.monotonic() > deadline:
                    raise SystemExit(service.log_text())
                time.sleep(0.1)
            store = SqlStore(f"sqlite:///{folder}/state/fleet.db")
            with store.transaction() as work:
                for number in range(options.cameras):
                    work.cameras.add(f"cam-{number}", None, time.time())

            def make(counts: Counts) -> list[ThinCamera]:
                load = Load(telemetry_s=30.0, results_s=0.0)
                return [
                    ThinCamera(
                        f"cam-{n}", load, counts, host="127.0.0.1", port=broker.port, prefix="fleet/v1"
                    )
                    for n in range(options.cameras)
                ]

            fleet = ThinFleet(make)
            figures = asyncio.run(run(fleet, broker, service, options.seconds))
            service.stop()
        verdict = check(store, fleet.truths())
        store.close()
    for what, figure in figures.items():
        print(f"{what:28} {figure}")
    print(f"{'violations':28} {len(verdict.violations)} {verdict.violations[:3] or ''}")
    print(json.dumps({"benchmark": "storm", **figures, "violations": len(verdict.violations)}))
    raise SystemExit(1 if verdict.violations else 0)


if __name__ == "__main__":
    main()
