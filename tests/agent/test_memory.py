"""What the agent takes of a camera's memory and flash, and that it does not grow.

The agent as it is deployed, on MicroPython for 32 bits, beside stand-ins for firmware and broker that run in place, as
firmware does (benchmarks/device): what is left of them on the heap counts as the camera's, see the benchmark.
"""

import re
from typing import Any

import pytest

from benchmarks.agent_cost import TARGET_LIVE, TARGET_MPY, Workshop
from fleetd.provisioning import package
from tests.agent.micropython import DEVICE_FAKES, run_device

# What it may take today, with room for what is being added. Whoever needs more says so here, and in docs/cameras.md.
BUDGET_MPY = 120 * 1024
BUDGET_LIVE = {"from files": 124 * 1024, "in place": 76 * 1024}
NAMES = 20 + 40 + 80 + 160 + 320 + 640  # what fits before the next table, of 1,280 names
NAMES_OF_OTHERS = 40  # main.py, settings, labels: whatever else is a word
PATIENCE = 600.0  # seconds, for a busy machine; the hour takes about ten of processor time
HOUR = 3630  # seconds; a connection is lost every 72 s
GROWTH = 512  # bytes by which two quiet moments may differ: what happens to be queued


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("cost"))


def test_the_deployed_agent_stays_within_its_budget_of_flash(workshop: Workshop) -> None:
    size = sum(workshop.deployed.values())
    largest = sorted(workshop.deployed.items(), key=lambda one: -one[1])[:6]
    assert size <= BUDGET_MPY, (
        f"the compiled agent has {size} bytes, {BUDGET_MPY} are budgeted, {TARGET_MPY} the aim; "
        f"largest: {largest}"
    )


def test_the_names_fit_the_table_that_micropython_has_for_them(workshop: Workshop) -> None:
    done = run_device(
        "i386",
        DEVICE_FAKES / "count_names.py",
        str(workshop.mpy / package.FOLDER),
        heapsize="2m",
        paths=[workshop.mpy, DEVICE_FAKES / "lean"],
        own_sources=False,
    )
    found = re.search(r"n_qstr=(\d+)", done.stdout)
    assert found is not None, done.stdout
    assert 500 < int(found[1]) <= NAMES - NAMES_OF_OTHERS, (
        f"{found[1]} names; the {NAMES + 1}st doubles the table, which takes {NAMES * 7 // 1024} KB of every camera"
    )


@pytest.mark.parametrize("where", list(BUDGET_LIVE))
def test_the_agent_at_work_stays_within_its_budget_of_heap(workshop: Workshop, where: str) -> None:
    found = workshop.run("i386", "memory", 60, "400k", in_place=where == "in place", seconds=PATIENCE)
    budget = BUDGET_LIVE[where]
    assert found["live"] <= budget, (
        f"run {where}, the agent keeps {found['live']} bytes ({found['code']} of them code), "
        f"{budget} are budgeted, {TARGET_LIVE} the aim"
    )


@pytest.mark.slow
def test_the_agent_lives_an_hour_in_96_kb_without_growth_through_3_updates_and_50_lost_connections(
    workshop: Workshop,
) -> None:
    lived: dict[str, Any] = workshop.run("i386", "hour", HOUR, "96k", in_place=True, seconds=PATIENCE)

    assert lived["release"] == "demo-4"
    assert lived["reconnects"] == HOUR // 72
    assert lived["frames"] > HOUR * 0.95
    assert (lived["exceptions"], lived["lost"], lived["refused"]) == (0, 0, 0)
    assert lived["problems"] == []
    quiet = lived["live"]
    assert len(quiet) == HOUR // 72
    after_the_last_update = quiet[len(quiet) * 3 // 4 + 1 :]
    assert max(after_the_last_update) - after_the_last_update[0] <= GROWTH, quiet
    assert after_the_last_update[-1] - quiet[1] <= 2 * GROWTH, quiet
