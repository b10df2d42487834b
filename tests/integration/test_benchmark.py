"""`fleetctl benchmark`: from the command line to a camera's sensor and back, with table, estimate and plot."""

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fleetd.cli import chart
from fleetd.cli.main import app
from fleetd.cli.session import Session
from tests.brokers import Mosquitto
from tests.e2e.site import Site, until
from tests.integration.api_rig import Rig, running_rig
from tests.integration.cli_desk import CLEAR_SCREEN, RT1062, Desk

SVG = "{http://www.w3.org/2000/svg}"
SIZES: dict[str, Any] = {
    "input": [96, 96, 3],
    "sizes": [
        {"size": 240, "frames": 20, "fps": 11.23, "capture_ms": 12.0, "inference_ms": 74.0, "total_ms": 86.0},
        {
            "size": 1024,
            "frames": 20,
            "fps": 3.18,
            "capture_ms": 220.0,
            "inference_ms": 85.0,
            "total_ms": 305.0,
        },
    ],
}


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


def texts(svg: str) -> list[str]:
    """Every text of a valid SVG picture."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return [one.text or "" for one in root.iter(f"{SVG}text")]


# --- with a virtual camera ------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Site]:
    site = Site(tmp_path, mosquitto)
    site.start()
    yield site
    site.stop()


def fleetctl(site: Site, *words: str) -> Any:
    env = {"FLEETCTL_URL": site.daemon.url, "FLEETCTL_TOKEN_FILE": str(site.folder / "state" / "admin.token")}
    env["HOME"] = str(site.folder)
    ran = CliRunner().invoke(
        app, list(words), obj=Session(env=env, folder=site.folder, sleep=lambda _: time.sleep(0.05))
    )
    assert ran.exit_code == 0, ran.output
    return ran


def test_a_virtual_camera_is_measured_drawn_and_goes_on_classifying(site: Site, tmp_path: Path) -> None:
    camera = site.camera("cam-1")
    camera.start()
    rollout = site.push("demo-v2")
    until(lambda: site.confirmed(rollout))
    until(lambda: site.running("cam-1") == "model-1")
    plot = tmp_path / "out.svg"
    words = ["benchmark", "cam-1", "--sizes", "240,320,640", "--frames", "5", "--battery-mah", "2000"]
    shown = fleetctl(site, *words, "--plot", str(plot))
    lines = [line.split() for line in shown.stdout.splitlines()]
    rows = [line for line in lines if line and re.fullmatch(r"\d+x\d+", line[0])]
    assert [row[0] for row in rows] == ["240x240", "320x320", "640x640"] * 2
    for row, published in zip(
        rows,
        (["11.23", "74", "200", "mA"], ["10.43", "75", "200", "mA"], ["6.16", "78", "200", "mA"]),
        strict=False,
    ):
        assert all(float(value) > 0 for value in row[1:5])
        assert row[5:] == published
    assert "This is a virtual camera" in shown.stdout
    assert "ronibandini" in shown.stdout
    assert "BATTERY LASTS" in shown.stdout
    found = texts(plot.read_text())
    assert {"Classifying on cam-1", "240 x 240", "640 x 640", "Frame rate", "Time of a frame"} <= set(found)

    found = json.loads(fleetctl(site, *words, "--json").stdout)
    assert found["virtual"]
    assert found["release"] == "model-1"
    assert [one["frames"] for one in found["sizes"]] == [5, 5, 5]
    for one, cost in zip(found["sizes"], found["energy"]["sizes"], strict=True):
        assert one["total_ms"] == pytest.approx(one["capture_ms"] + one["inference_ms"], abs=0.02)
        assert one["slowest_ms"] >= one["total_ms"]
        assert cost["inference_mj"] == pytest.approx(one["inference_ms"] * 200 * 5 / 1000)
        assert cost["battery_days"] == pytest.approx(2000 / cost["mah_per_day"])

    before = site.results("cam-1", "model-1")
    until(lambda: site.results("cam-1", "model-1") > before, what="results afterwards")
    assert camera.boots == 1


def test_results_go_on_and_the_link_is_served_while_it_measures(site: Site) -> None:
    """Telemetry comes in the middle of a benchmark that takes seconds."""
    camera = site.camera("cam-1")
    camera.start()
    rollout = site.push("demo-v2")
    until(lambda: site.confirmed(rollout))
    camera.faults.slow_ms = 60
    before = len(site.daemon.registry.telemetry(camera="cam-1"))
    number = site.daemon.registry.send_command(
        "cam-1", "benchmark", args={"sizes": [96, 240], "frames": 25}, actor="alice", ttl_s=60
    )
    until(lambda: site.daemon.registry.command(number)["state"] == "done")
    assert len(site.daemon.registry.telemetry(camera="cam-1")) >= before + 2
    sizes = (site.daemon.registry.command(number)["data"] or {})["sizes"]
    assert all(one["inference_ms"] >= 60 for one in sizes)


def test_a_camera_without_a_model_says_so(site: Site) -> None:
    site.camera("cam-1").start()
    until(lambda: site.daemon.registry.camera("cam-1").presence == "online")
    number = site.daemon.registry.send_command("cam-1", "benchmark", actor="alice")
    until(lambda: site.daemon.registry.command(number)["state"] == "failed")
    assert site.daemon.registry.command(number)["reason"] == "no-model"


# --- with a camera that answers what a test wants --------------------------------------------------------------


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    desk = Desk(rig, tmp_path)
    rig.enrol("cam-1")
    rig.land("cam-1", "status", 1, online=True, board=RT1062, agent="0.1.0", capabilities=["benchmark"])
    return desk


def answers(desk: Desk, **reply: Any) -> list[dict[str, Any]]:
    """The camera replies like this to the next benchmark; what it was asked is in the list."""
    asked: list[dict[str, Any]] = []

    def answer() -> None:
        with desk.rig.store.reading() as work:
            for row in work.commands.unsent(desk.rig.now):
                if not asked:
                    asked.append(dict(row))
                    desk.rig.land_reply("cam-1", "benchmark", 7, id=row["id"], **reply)

    desk.meanwhile = answer
    return asked


def test_the_command_says_what_was_asked_for_and_how_long_it_is_good(desk: Desk) -> None:
    asked = answers(desk, ok=True, data=SIZES)
    desk.ok("benchmark", "cam-1", "--sizes", "240,1024", "--frames", "7")
    (command,) = asked
    assert command["name"] == "benchmark"
    assert command["args"] == {"sizes": [240, 1024], "frames": 7}
    assert command["ttl_s"] == 60 + 2 * 80


def test_the_published_experiment_measured_again_gives_the_published_energy(desk: Desk) -> None:
    """74 ms at 200 mA and 5 V are 74 mJ; once a minute awake costs 2643 mAh a day, so 2000 mAh last 0.76 days."""
    answers(desk, ok=True, data=SIZES)
    found = desk.json("benchmark", "cam-1", "--battery-mah", 2000)
    small, large = found["energy"]["sizes"]
    assert small["inference_mj"] == pytest.approx(74.0)
    assert small["inference_above_idle_mj"] == pytest.approx(33.3)
    assert small["frame_mj"] == pytest.approx(89.05, abs=0.01)
    assert small["mah_per_day"] == pytest.approx(2643.2, abs=0.1)
    assert small["battery_days"] == pytest.approx(0.757, abs=0.001)
    assert small["battery_days_asleep"] == pytest.approx(2.47, abs=0.01)
    assert large["inference_mj"] == pytest.approx(89.25)
    assert large["active_ma"] == 210
    assert not found["virtual"]
    assert found["published"]["sizes"][0] == {
        "size": 240,
        "fps": 11.23,
        "inference_ms": 74.0,
        "current_ma": 200.0,
    }


def test_own_measurements_voltage_and_duty_cycle_change_the_estimate(desk: Desk) -> None:
    answers(desk, ok=True, data=SIZES)
    options = {"active-ma": 100, "idle-ma": 50, "sleep-ma": 0.1, "volts": 3.7, "interval-s": 0, "usable": 0.8}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    found = desk.json("benchmark", "cam-1", "--battery-mah", 1000, *words)
    for one in found["energy"]["sizes"]:
        assert one["mah_per_day"] == pytest.approx(2400)
        assert one["battery_days"] == pytest.approx(800 / 2400)
    assert found["energy"]["sizes"][0]["inference_mj"] == pytest.approx(74 * 100 * 3.7 / 1000)
    assert found["energy"]["source"].startswith("your own (active, idle, deep sleep)")


def test_a_board_that_nobody_measured_gets_no_estimate_but_its_table(desk: Desk, rig: Rig) -> None:
    rig.land("cam-1", "status", 2, online=True, board="OMV4 H7 1024", capabilities=["benchmark"])
    answers(desk, ok=True, data=SIZES)
    text = desk.ok("benchmark", "cam-1")
    assert re.search(r"^240x240 +11\.23 +12\.00 +74\.00 +89\.05 +11\.23 +74 +200 mA$", text, re.MULTILINE), (
        text
    )
    assert "Nobody has published what a OMV4 H7 1024 draws" in text


def test_a_board_that_nobody_measured_is_estimated_with_own_currents(desk: Desk, rig: Rig) -> None:
    rig.land("cam-1", "status", 2, online=True, board="OMV4 H7 1024", capabilities=["benchmark"])
    answers(desk, ok=True, data=SIZES)
    assert "--active-ma and --idle-ma" in desk.fails(2, "benchmark", "cam-1", "--active-ma", 150)
    assert desk.slept == 0, "nobody waits for a measurement that is thrown away"
    answers(desk, ok=True, data=SIZES)
    text = desk.ok("benchmark", "cam-1", "--active-ma", 150, "--idle-ma", 100, "--battery-mah", 2000)
    assert re.search(r"^240x240 +150 mA .* - +0\.\d+ d +-$", text, re.MULTILINE), text


def test_a_size_that_did_not_work_is_told_beside_the_others(desk: Desk, tmp_path: Path) -> None:
    broken = {"size": 1024, "error": f"RuntimeError: Frame buffer overflow{CLEAR_SCREEN}"}
    answers(desk, ok=True, data={"input": [96, 96, 3], "sizes": [SIZES["sizes"][0], broken]})
    ran = desk.run("benchmark", "cam-1", "--plot", tmp_path / "a.svg")
    assert ran.exit_code == 0
    assert re.search(r"^1024x1024 +- +- +- +- +3\.18", ran.stdout, re.MULTILINE)
    assert "1024x1024: RuntimeError: Frame buffer overflow\\x1b" in ran.stderr
    assert CLEAR_SCREEN not in ran.output
    assert "1024 x 1024" in texts((tmp_path / "a.svg").read_text())


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("no-model", "push one first"),
        ("busy", "wait for its end"),
        ("interrupted", "try again"),
        ("odd", "events"),
    ],
)
def test_a_camera_that_refuses_says_why(desk: Desk, reason: str, advice: str) -> None:
    answers(desk, ok=False, reason=reason)
    said = desk.fails(1, "benchmark", "cam-1")
    assert f"did not measure: {reason}" in said
    assert advice in said


def test_a_camera_that_never_answers_is_not_waited_for_for_ever(desk: Desk) -> None:
    assert "did not answer within 140 s" in desk.fails(1, "benchmark", "cam-1", "--sizes", "240")


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"input": [96], "sizes": []},
        {"input": [96], "sizes": "many"},
        {"input": [96], "sizes": [{"size": -1}]},
        {"input": [96], "sizes": [{"size": 240, "fps": 1e300}]},
        {"input": [96], "sizes": [{"size": 240, "fps": "fast"}]},
        {"input": [96], "sizes": [{"size": 240}] * 17},
    ],
)
def test_an_answer_that_is_no_benchmark_is_called_that(desk: Desk, data: Any) -> None:
    answers(desk, ok=True, data=data)
    assert "but not with a benchmark" in desk.fails(1, "benchmark", "cam-1")


def test_cameras_that_cannot_answer_are_not_asked(desk: Desk, rig: Rig) -> None:
    rig.enrol("cam-2")
    assert "cam-2 is new" in desk.fails(1, "benchmark", "cam-2")
    rig.land("cam-1", "status", 2, online=True, board=RT1062, agent="0.0.9", capabilities=["classify"])
    assert "(0.0.9) knows no benchmark" in desk.fails(1, "benchmark", "cam-1")
    rig.now += 3600
    assert "cam-1 is offline" in desk.fails(1, "benchmark", "cam-1")
    assert desk.slept == 0


@pytest.mark.parametrize("sizes", ["", "big", "240;320", "31", "1601", "240,", ",".join(["240"] * 9), "1e3"])
def test_sizes_that_make_no_sense_are_refused_before_anything_is_sent(desk: Desk, sizes: str) -> None:
    assert "are no sizes" in desk.fails(2, "benchmark", "cam-1", "--sizes", sizes)
    assert desk.slept == 0


def test_currents_that_make_no_sense_are_refused_before_anything_is_sent(desk: Desk) -> None:
    said = desk.fails(2, "benchmark", "cam-1", "--active-ma", 50, "--idle-ma", 110)
    assert "work takes at least as much as rest" in said
    assert desk.slept == 0


def test_a_plot_that_cannot_be_written_is_said_before_anything_is_sent(desk: Desk, tmp_path: Path) -> None:
    assert "cannot be written" in desk.fails(1, "benchmark", "cam-1", "--plot", tmp_path / "no" / "where.svg")
    assert desk.slept == 0


# --- the picture ---------------------------------------------------------------------------------------------------


@given(st.floats(1e-6, 1e12))
def test_axis_marks_are_round_cover_everything_and_are_few(most: float) -> None:
    marks = chart.ticks(most)
    assert marks[0] == 0
    assert marks[-1] >= most * (1 - 1e-6)
    assert marks[-1] <= most * 2.01
    assert 2 <= len(marks) <= 8
    step = marks[1]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - wanted) for wanted in (1, 2, 5)) < 1e-6


@given(
    names=st.lists(st.text(max_size=20), min_size=1, max_size=4),
    values=st.lists(st.floats(0, 1e9), max_size=8),
)
def test_any_names_and_values_make_a_valid_picture(names: list[str], values: list[float]) -> None:
    bars = [[(value, "#123456")] for value in values]
    panel = chart.Panel("a", "b", [(name, "#654321") for name in names], [(name, bars) for name in names])
    found = ElementTree.fromstring(chart.draw(names[0], names[-1], [panel, panel]))
    for rect in found.iter(f"{SVG}rect"):
        assert float(rect.attrib["height"]) >= 0
        assert float(rect.attrib["width"]) >= 0
