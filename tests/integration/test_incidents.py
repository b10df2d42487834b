"""Incidents over the real database: opened once, renamed by better evidence, closed by the camera's own word."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from fleetd.domain.incidents import Incident, IncidentRules, Kind
from fleetd.errors import ConflictError, NotFoundError
from fleetd.incidents import Incidents, UnknownIncidentError
from fleetd.store.landing import Arrival
from tests.integration.api_rig import START, Rig, running_rig

RT1062 = "OMVRT1060 32768 SDRAM"


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


class Site:
    """Cameras that report by the rig's clock, until they are told to be silent."""

    def __init__(self, rig: Rig, *names: str, at: str = "") -> None:
        self.rig = rig
        self.names = names
        self.silent: set[str] = set()
        self.keepalive = "telemetry"  # cheaper to store than a status
        self._known: set[str] = set()
        self.boots = dict.fromkeys(names, "0123456789abcdef")
        self._seq = 0
        for name in names:
            rig.registry.enrol(name, actor="rig")
            if at:
                rig.registry.move(name, at, actor="rig")

    def say(self, *names: str, channel: str = "status", **body: Any) -> None:
        arrivals = []
        for name in names:
            self._seq += 1
            if channel == "status":
                body = {"online": True, "board": RT1062, **body}
            message = {
                "boot": self.boots[name],
                "seq": self._seq,
                "up_ms": int(1000 * (self.rig.now - START)),
                **body,
            }
            arrivals.append(Arrival(name, channel, "", message, self.rig.now, retained=False))
        self.rig.landing.write(arrivals)

    def run(self, seconds: float, *, each: Callable[[], object] = lambda: None, step: float = 30.0) -> None:
        """Time goes by; whoever is not silent reports."""
        end = self.rig.now + seconds
        while self.rig.now < end:
            self.rig.now += step
            talking = [name for name in self.names if name not in self.silent]
            new = [name for name in talking if name not in self._known]
            self._known.update(new)
            if new:
                self.say(*new)
            if self.keepalive == "status":
                self.say(*talking)
            elif talking:
                self.say(*talking, channel="telemetry", frames=int(self.rig.now))
            each()
            self.rig.incidents.process()


def opened(rig: Rig) -> list[Incident]:
    return rig.incidents.incidents()


def told(rig: Rig, incident: int) -> list[str]:
    return [str(notice["what"]) for notice in rig.incidents.incident(incident)[2]]


def test_silence_becomes_one_incident_and_the_cameras_own_word_closes_it(rig: Rig) -> None:
    site = Site(rig, "cam-1", "cam-2")
    site.run(120)
    assert opened(rig) == []
    site.silent = {"cam-1"}
    site.run(270)
    assert opened(rig) == [], "a short radio outage is nobody's business"
    site.run(600)
    (incident,) = opened(rig)
    assert (incident.kind, incident.camera, incident.severity) == (Kind.SILENCE, "cam-1", "warning")
    assert incident.causes[0]["cause"] == "unknown"
    assert incident.causes[0]["evidence"]
    site.silent = set()
    site.run(30)
    assert len(opened(rig)) == 1, "one message is not yet being back"
    site.run(90)
    assert opened(rig) == []
    closed, notes, _ = rig.incidents.incident(incident.id)
    assert closed.outcome == "the camera reports again"
    assert closed.closed_at is not None
    assert [note["text"].split(":")[0] for note in notes] == ["opened", "closed"]
    assert told(rig, incident.id) == ["opened", "closed"]


def test_an_operators_look_renames_the_silence_instead_of_adding_an_incident(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    site.run(60)
    site.silent = {"cam-1"}
    site.run(400)
    rig.registry.report_led(
        "cam-1", color="white", pattern="blink-fast", source="operator", reason=None, actor="ada"
    )
    site.run(30)
    (incident,) = opened(rig)
    assert (incident.kind, incident.severity) == (Kind.PANIC, "critical")
    assert incident.causes[0]["cause"] == "firmware-panic"
    assert told(rig, incident.id) == ["opened", "changed"]
    site.run(3000)
    assert [one.id for one in opened(rig)] == [incident.id]
    assert opened(rig)[0].kind is Kind.PANIC, "mere silence does not take a better name away"


@pytest.mark.parametrize(
    ("color", "pattern", "kind"),
    [
        ("green", "blink-fast", Kind.BOOTLOADER),
        ("blue", "double-blink", Kind.STORAGE_RESET),
        ("white", "cycle", Kind.PANIC),
        ("yellow", "double-blink", Kind.NO_NETWORK),
    ],
)
def test_what_somebody_sees_on_a_silent_camera_needs_no_waiting(
    rig: Rig, color: str, pattern: str, kind: Kind
) -> None:
    site = Site(rig, "cam-1")
    site.run(60)
    site.silent = {"cam-1"}
    site.run(90)
    assert opened(rig) == []
    rig.registry.report_led(
        "cam-1", color=color, pattern=pattern, source="operator", reason=None, actor="ada"
    )
    site.run(30)
    assert [one.kind for one in opened(rig)] == [kind]


def test_usb_is_evidence_too(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    site.run(60)
    site.silent = {"cam-1"}
    site.run(120)
    rig.registry.report_led(
        "cam-1", color="unknown", pattern="unknown", source="usb", reason="rom", actor="ada"
    )
    site.run(30)
    (incident,) = opened(rig)
    assert (incident.kind, incident.causes[0]["cause"]) == (Kind.BOOTLOADER, "bootloader-lost")


def test_a_site_outage_of_300_cameras_is_one_incident_and_ends_as_one(rig: Rig) -> None:
    names = [f"cam-{number}" for number in range(300)]
    site = Site(rig, *names, at="hall-3")
    other = Site(rig, "far-1", "far-2")

    def elsewhere() -> None:
        other.say("far-1", "far-2")

    site.run(90, each=elsewhere)
    for start in range(0, 300, 100):  # they do not fall silent in the same second
        site.silent |= set(names[start : start + 100])
        site.run(30, each=elsewhere)
    most = 0
    for _ in range(12):
        site.run(50, each=elsewhere, step=50)
        most = max(most, len(opened(rig)))
    assert most == 1
    (incident,) = opened(rig)
    assert (incident.kind, incident.site, incident.camera) == (Kind.SITE_OUTAGE, "hall-3", None)
    assert incident.cameras == 300
    for start in range(0, 300, 60):
        site.silent -= set(names[start : start + 60])
        site.run(50, each=elsewhere, step=50)
        assert [one.kind for one in opened(rig)] in ([Kind.SITE_OUTAGE], [])
    site.run(200, each=elsewhere, step=50)
    assert opened(rig) == []
    assert len(rig.incidents.incidents(is_open=None)) == 1
    assert told(rig, incident.id) == ["opened", "closed"]


def test_cameras_that_stay_away_after_their_sites_outage_get_an_incident_of_their_own(rig: Rig) -> None:
    names = [f"cam-{number}" for number in range(20)]
    site = Site(rig, *names, at="hall-3")
    site.run(90)
    site.silent = set(names)
    site.run(600)
    site.silent = {"cam-3"}
    site.run(240)
    assert opened(rig) == []
    site.run(400)
    assert [(one.kind, one.camera) for one in opened(rig)] == [(Kind.SILENCE, "cam-3")]


def test_a_flapping_camera_has_one_incident_and_few_notices(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    site.run(60)
    for _ in range(15):
        site.silent = {"cam-1"}
        site.run(420)
        site.silent = set()
        site.run(150)
    found = rig.incidents.incidents(is_open=None)
    assert len(found) == 1
    assert found[0].times >= 4
    assert len(told(rig, found[0].id)) <= 8, "most of the way it is known to flap"
    assert len(rig.incidents.incident(found[0].id)[1]) <= 30


def test_silence_while_fleetd_or_the_broker_was_away_is_not_the_cameras(rig: Rig) -> None:
    heard = [True]
    incidents = Incidents(rig.store, lambda: rig.now, listening=lambda: heard[0])
    rig.incidents = incidents
    site = Site(rig, "cam-1")
    site.run(60)
    heard[0] = False
    site.silent = {"cam-1"}
    site.run(4000)
    assert opened(rig) == []
    heard[0] = True
    site.run(240)
    assert opened(rig) == [], "the camera has its full time again"
    site.run(300)
    assert len(opened(rig)) == 1
    rig.now += 86_400  # fleetd was off for a day
    incidents.process()
    assert len(opened(rig)) == 1


def test_a_new_fleetd_goes_on_with_the_incidents_of_the_old_one(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    site.run(60)
    site.silent = {"cam-1"}
    site.run(600)
    rig.incidents = Incidents(rig.store, lambda: rig.now)
    site.run(600)
    assert len(opened(rig)) == 1
    assert len(rig.incidents.incidents(is_open=None)) == 1


def test_two_fleetds_do_not_open_the_same_incident_twice(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    other = Incidents(rig.store, lambda: rig.now, channels=["webhook"])
    site.run(60, each=other.process)
    site.silent = {"cam-1"}
    site.run(900, each=other.process)
    assert len(rig.incidents.incidents(is_open=None)) == 1
    assert told(rig, opened(rig)[0].id) == ["opened"]


def test_a_boot_loop_is_seen_although_the_camera_is_never_silent(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    site.run(60)
    for number in range(5):
        site.boots["cam-1"] = f"{number:016x}"
        site.say("cam-1", channel="event", kind="boot", text="watchdog: agent 0.1.0 on firmware 4.8")
        site.run(60)
    (incident,) = opened(rig)
    assert incident.kind is Kind.BOOT_LOOP
    assert "boot-loop" in [one["cause"] for one in incident.causes]
    site.run(1200)
    assert opened(rig) == []


def test_a_supply_that_drops_is_named(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    site.run(60)
    site.boots["cam-1"] = "1" * 16
    site.say("cam-1", channel="event", kind="boot", text="brown-out: agent 0.1.0 on firmware 4.8")
    site.run(60)
    assert [one.kind for one in opened(rig)] == [Kind.POWER]


def test_two_devices_with_one_name_are_shown_a_reboot_is_not(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    site.run(120)
    site.boots["cam-1"] = "a" * 16  # a reboot: the old boot never speaks again
    site.run(120)
    assert opened(rig) == []

    def twin() -> None:
        site.boots["cam-1"] = "b" * 16 if site.boots["cam-1"] == "a" * 16 else "a" * 16

    site.run(240, each=twin)
    assert [one.kind for one in opened(rig)] == [Kind.DUPLICATE_IDENTITY]
    site.boots["cam-1"] = "a" * 16
    site.run(1500)
    assert opened(rig) == []


def test_a_picture_that_never_changes_is_frozen_one_without_a_model_is_not(rig: Rig) -> None:
    site = Site(rig, "cam-1", "cam-2")
    site.keepalive = "status"

    def measure() -> None:
        site.say("cam-1", channel="telemetry", picture={"hash": "same"}, frames=int(rig.now))
        site.say("cam-2", channel="telemetry", picture={"hash": str(rig.now)}, frames=int(rig.now))

    site.run(500, each=measure)
    assert opened(rig) == []
    site.run(300, each=measure)
    assert [(one.kind, one.camera) for one in opened(rig)] == [(Kind.FROZEN_PICTURE, "cam-1")]


def test_lost_connections_add_up_to_a_network_incident(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    count = iter(range(100))
    site.run(
        600, each=lambda: site.say("cam-1", channel="telemetry", reconnects=next(count), frames=int(rig.now))
    )
    assert [one.kind for one in opened(rig)] == [Kind.NO_NETWORK]


def test_maintenance_opens_nothing_and_ends_by_itself(rig: Rig) -> None:
    site = Site(rig, "cam-1", "cam-2", at="hall-3")
    site.run(60)
    rig.incidents.start_maintenance("site=hall-3", 1800, "new switch", actor="ada")
    site.silent = {"cam-1"}
    site.run(1700)
    assert opened(rig) == []
    assert [one["subject"] for one in rig.incidents.mutes()] == ["site=hall-3"]
    site.run(600)
    assert [one.camera for one in opened(rig)] == ["cam-1"]
    rig.incidents.end_maintenance("cam-2", actor="ada")  # there is none: what was asked for is so
    with pytest.raises(NotFoundError):
        rig.incidents.start_maintenance("nobody", 60, "", actor="ada")


def test_a_muted_incident_tells_nobody(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    site.run(60)
    site.silent = {"cam-1"}
    site.run(600)
    (incident,) = opened(rig)
    rig.incidents.mute(incident.id, 86_400, actor="ada")
    rig.registry.report_led(
        "cam-1", color="white", pattern="cycle", source="operator", reason=None, actor="ada"
    )
    site.run(60)
    site.silent = set()
    site.run(300)
    assert told(rig, incident.id) == ["opened"]


def test_owner_notes_and_closing_by_hand(rig: Rig) -> None:
    site = Site(rig, "cam-1")
    site.run(60)
    site.silent = {"cam-1"}
    site.run(600)
    (incident,) = opened(rig)
    rig.incidents.own(incident.id, "ada", actor="ada")
    rig.incidents.note(incident.id, "on my way", actor="ada")
    with pytest.raises(ConflictError, match="still true"):
        rig.incidents.close(incident.id, "never mind", actor="ada")
    site.say("cam-1")
    rig.incidents.close(incident.id, "cable", actor="ada")
    found, notes, _ = rig.incidents.incident(incident.id)
    assert (found.owner, found.outcome) == ("ada", "cable")
    assert "on my way" in [note["text"] for note in notes]
    rig.incidents.close(incident.id, "again", actor="ada")
    assert rig.incidents.incident(incident.id)[0].outcome == "cable"
    with pytest.raises(UnknownIncidentError):
        rig.incidents.note(99, "x", actor="ada")


def test_a_camera_that_is_removed_takes_its_incidents_along(rig: Rig) -> None:
    site = Site(rig, "cam-1", "cam-2")
    site.run(60)
    site.silent = {"cam-1"}
    site.run(600)
    rig.registry.remove("cam-1", actor="ada")
    site.names = ("cam-2",)
    site.run(120)
    assert opened(rig) == []


def test_the_watch_writes_little_while_nothing_changes(rig: Rig) -> None:
    site = Site(rig, "cam-1", "cam-2")
    site.run(60)
    site.silent = {"cam-1"}
    site.run(600)
    before = len(rig.incidents.incident(opened(rig)[0].id)[1])
    site.run(1800)
    assert len(rig.incidents.incident(opened(rig)[0].id)[1]) == before
    assert IncidentRules().steadier >= 1
