"""Incidents and recoveries in both databases."""

from collections.abc import Iterator

import pytest

from fleetd.domain.incidents import Kind, Symptom
from fleetd.domain.presence import PresenceRules
from fleetd.errors import ConflictError
from fleetd.evidence import gather
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, Landing

NOW = 1_700_000_000.0


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    store = SqlStore(database_url)
    yield store
    store.close()


def test_an_incident_is_kept_once_while_it_is_open_and_can_come_back(store: SqlStore) -> None:
    with store.transaction() as work:
        camera = work.cameras.add("cam-1", None, NOW)
        symptom = Symptom(Kind.SILENCE, camera, "", "cam-1 is silent")
        causes = [{"cause": "unknown", "evidence": ["it is silent"]}]
        first = work.incidents.add(symptom, "warning", causes, NOW)
    with pytest.raises(ConflictError), store.transaction() as work:
        work.incidents.add(Symptom(Kind.PANIC, camera, "", "the same lane"), "critical", [], NOW)
    with store.transaction() as work:
        work.incidents.close(first.id, "back", NOW + 60)
        second = work.incidents.add(symptom, "warning", [], NOW + 100)
        work.incidents.add_note(second.id, "ada", "hm", NOW)
        work.incidents.add_notice(second.id, "webhook", "opened", {"a": 1}, NOW)
        work.incidents.set_mute("all", NOW + 10, "why", "ada", NOW)
        work.incidents.set_mute("all", NOW + 20, "why", "ada", NOW)
    with pytest.raises(ConflictError), store.transaction() as work:
        work.incidents.reopen(first, NOW + 200)  # another one is open
    with store.reading() as work:
        assert [one.id for one in work.incidents.opened()] == [second.id]
        assert [one.id for one in work.incidents.closed_since(NOW)] == [first.id]
        found = work.incidents.get(first.id)
        assert found is not None
        assert (found.camera, found.causes[0]["cause"], found.closed_at) == ("cam-1", "unknown", NOW + 60)
        assert [one["text"] for one in work.incidents.notes(second.id)] == ["hm"]
        assert [one["body"] for one in work.incidents.due_notices(NOW, 10)] == [{"a": 1}]
        assert [one["until"] for one in work.incidents.mutes(NOW)] == [NOW + 20]
    with store.transaction() as work:
        work.cameras.remove(camera.id, 0.0)
        assert work.incidents.all(is_open=None, camera=None, since=None, limit=10) == []


def test_a_recovery_is_moved_on_by_one_hand_at_a_time(store: SqlStore) -> None:
    values = {
        "board": "rt1062",
        "cause": "unknown",
        "guide": "ladder",
        "step": "unplug",
        "causes": [],
        "log": [],
    }
    with store.transaction() as work:
        camera = work.cameras.add("cam-1", None, NOW)
        recovery = work.recoveries.add(camera.id, values, "ada", NOW)
    with pytest.raises(ConflictError), store.transaction() as work:
        work.recoveries.add(camera.id, values, "bob", NOW)
    with store.transaction() as work:
        assert work.recoveries.advance(recovery, {"step": "plug-in"}, [{"step": "unplug"}], NOW + 1)
        assert not work.recoveries.advance(recovery, {"step": "plug-in"}, [], NOW + 2)
        moved = work.recoveries.opened(camera.id)
        assert moved is not None
        assert (moved.step, list(moved.log)) == ("plug-in", [{"step": "unplug"}])
        ended = {"state": "recovered", "open_key": None, "finished_at": NOW + 3}
        assert work.recoveries.advance(moved, ended, [], NOW + 3)
        assert work.recoveries.opened(camera.id) is None
        assert [one.state for one in work.recoveries.all(camera="cam-1", limit=5)] == ["recovered"]


def test_evidence_is_gathered_for_many_cameras_at_once(store: SqlStore) -> None:
    with store.transaction() as work:
        for number in range(1, 4):
            work.cameras.add(f"cam-{number}", None, NOW)
    landing = Landing(store)
    boot = "0123456789abcdef"
    arrivals = []
    for number in range(1, 4):
        head = {"boot": boot, "up_ms": 1000}
        name = f"cam-{number}"
        status = {"online": True, "board": "OMVRT1060 32768 SDRAM"}
        arrivals.append(Arrival(name, "status", "", {**head, "seq": 1, **status}, NOW, False))
        for seq in range(2, 6):
            body = {**head, "seq": seq, "reconnects": seq * number, "frames": 7, "up_ms": seq * 300_000}
            arrivals.append(Arrival(name, "telemetry", "", body, NOW + seq * 300, False))
    landing.write(arrivals)
    with store.transaction() as work:
        camera = work.cameras.get("cam-2")
        assert camera is not None
        work.history.add_sighting(camera.id, NOW + 1600, "white", "cycle", "operator", None)
        found = {
            one.camera.name: one for one in gather(work, work.cameras.all(), NOW + 1700, PresenceRules())
        }
        assert work.evidence.booted_since(NOW - 1) == {one.camera.id for one in found.values()}
        assert work.evidence.booted_since(NOW + 1) == frozenset()
    assert found["cam-3"].clues.outages == 9
    assert found["cam-1"].clues.frozen_s == pytest.approx(900, abs=2)
    assert found["cam-2"].findings[0].cause.key == "firmware-panic"
    assert found["cam-2"].clues.light_seen == "white cycle"


def test_what_is_over_for_long_is_forgotten_and_what_is_open_is_kept(store: SqlStore) -> None:
    with store.transaction() as work:
        camera = work.cameras.add("cam-1", None, NOW)
        old = work.incidents.add(Symptom(Kind.SILENCE, camera, "", "x"), "warning", [], NOW)
        work.incidents.add_note(old.id, "ada", "hm", NOW)
        work.incidents.add_notice(old.id, "webhook", "opened", {}, NOW)
        values = {
            "board": "h7",
            "cause": "unknown",
            "guide": "ladder",
            "step": "unplug",
            "causes": [],
            "log": [],
        }
        recovery = work.recoveries.add(camera.id, {**values, "incident_id": old.id}, "ada", NOW)
        work.incidents.close(old.id, "back", NOW)
        fresh = work.incidents.add(Symptom(Kind.PANIC, camera, "", "y"), "critical", [], NOW)
        work.incidents.set_mute("all", NOW, "", "ada", NOW)
    with store.transaction() as work:
        assert work.upkeep.drop_notes(NOW + 1, 100) == 1
        assert work.upkeep.drop_notes(NOW + 1, 100) == 0
        assert [one.id for one in work.incidents.all(is_open=None, camera=None, since=None, limit=9)] == [
            fresh.id
        ]
        assert work.incidents.notes(old.id) == []
        assert work.incidents.notices(old.id) == []
        kept = work.recoveries.get(recovery.id)
        assert kept is not None
        assert kept.incident_id is None
        assert work.incidents.mutes(NOW - 1) == []
