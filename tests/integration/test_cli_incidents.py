"""`fleetctl incidents`, `diagnose` and `timeline` against the real API."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from fleetd.domain.records import Role
from tests.integration.api_rig import Rig, running_rig
from tests.integration.cli_desk import RT1062, Desk


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        rig.enrol("cam-7", "cam-8")
        rig.land("cam-7", "status", 1, online=True, board=RT1062, reset="power-on")
        yield rig


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    return Desk(rig, tmp_path)


def silent(rig: Rig) -> None:
    for _ in range(20):
        rig.now += 30
        rig.incidents.process()


def test_the_whole_life_of_an_incident(desk: Desk, rig: Rig) -> None:
    assert "No open incident" in desk.run("incidents", "ls").stderr
    silent(rig)
    assert desk.json("incidents", "ls")[0]["kind"] == "silence"
    said = desk.ok("incidents", "ls")
    assert "cam-7" in said
    assert "warning" in said
    desk.ok("led", "report", "cam-7", "white", "--pattern", "blink-fast")
    rig.now += 5
    rig.incidents.process()
    desk.ok("incidents", "own", "1", "ada")
    desk.ok("incidents", "note", "1", "going there")
    desk.ok("incidents", "mute", "1", "--for", "2h")
    said = desk.ok("incidents", "show", "1")
    for part in ("panic, critical", "1. the firmware has given up", "because the light was seen as white blink-fast",
                 "do first:", "going there", "ada", "told by webhook (opened): not sent"):  # fmt: skip
        assert part in said, part
    assert "fleetctl recover cam-7" in desk.run("incidents", "show", "1").stderr
    assert "still true" in desk.fails(1, "incidents", "close", "1")
    rig.land("cam-7", "status", 2, online=True)
    desk.ok("incidents", "close", "1", "--reason", "cable")
    report = desk.json("incidents", "report")
    assert (report["incidents"], report["open"]) == (1, 0)
    assert report["mttr_s"] > 60
    assert report["offenders"][0]["camera"] == "cam-7"
    assert "panic" in desk.ok("incidents", "report", "--since", "1d")
    assert desk.json("incidents", "ls", "--state", "all")[0]["outcome"] == "cable"


def test_a_diagnosis_names_causes_reasons_and_the_guide(desk: Desk, rig: Rig) -> None:
    rig.now += 400
    rig.land("cam-8", "status", 3, online=True)
    said = desk.ok("diagnose", "cam-7")
    assert "1. unknown" in said
    assert "fleetctl recover cam-7" in said
    desk.ok("led", "report", "cam-7", "blue", "--pattern", "double-blink")
    assert "1. its storage was formatted" in desk.ok("diagnose", "cam-7")
    assert "1. nothing is wrong" in desk.ok("diagnose", "cam-8")
    assert "No camera" in desk.fails(1, "diagnose", "cam-9")


def test_a_timeline_tells_lights_silences_incidents_and_updates_in_order(desk: Desk, rig: Rig) -> None:
    rig.land("cam-7", "event", 2, kind="boot", text="power-on: agent 0.1.0 on firmware 4.8.1")
    rig.land("cam-7", "update", 3, generation=1, release="model-1", state="failed", reason="out-of-memory")
    silent(rig)
    desk.ok("led", "report", "cam-7", "white", "--pattern", "cycle")
    found = desk.json("timeline", "cam-7")
    assert [one["at"] for one in found] == sorted((one["at"] for one in found), reverse=True)
    kinds = {one["kind"] for one in found}
    assert {"boot", "event", "update", "silence", "light", "incident"} <= kinds
    said = desk.ok("timeline", "cam-7")
    assert "model-1 failed: out-of-memory" in said
    assert "white cycle, seen by operator" in said


def test_maintenance_from_the_command_line(desk: Desk, rig: Rig) -> None:
    desk.ok("incidents", "maintenance", "start", "cam-7", "--for", "2h", "--reason", "new lens")
    assert "new lens" in desk.ok("incidents", "maintenance", "ls")
    silent(rig)
    assert desk.json("incidents", "ls") == []
    desk.ok("incidents", "maintenance", "end", "cam-7")
    silent(rig)
    assert len(desk.json("incidents", "ls")) == 1
    assert "no time" in desk.fails(2, "incidents", "maintenance", "start", "cam-7", "--for", "long")
    assert "No camera" in desk.fails(1, "incidents", "maintenance", "start", "cam-9", "--for", "1h")


def test_a_viewer_may_look_and_change_nothing(desk: Desk, rig: Rig) -> None:
    silent(rig)
    assert desk.json("incidents", "ls", role=Role.VIEWER)
    desk.fails(5, "incidents", "note", "1", "x", role=Role.VIEWER)
    desk.fails(5, "incidents", "maintenance", "start", "all", "--for", "1h", role=Role.VIEWER)


def test_risks_are_told_before_a_push_and_on_their_own(desk: Desk, rig: Rig) -> None:
    rig.enrol("cam-9")
    rig.land("cam-9", "status", 9, online=True, board="NICLAV H7 1024", capabilities=["classify"])
    assert "No camera that has reported" in desk.ok("cameras", "risks", "--to", "id=cam-7")
    silent(rig)
    found = desk.json("cameras", "risks")
    assert found == {"no-watchdog": ["cam-9"], "no-way-back": ["cam-9"], "has-incident": ["cam-7", "cam-9"]}
    said = desk.run("cameras", "risks", "--to", "id=cam-9").stderr
    assert "Risk: 1 camera whose bootloader OpenMV's tools cannot bring back (cam-9)" in said
    desk.make_key()
    result = desk.run("push-model", desk.bundle(), "--to", "id=cam-7", "--dry-run")
    assert "Risk: 1 camera with an open incident (cam-7)" in result.stderr
