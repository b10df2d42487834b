"""A camera that cannot start is never dead: which agent starts, when it goes back, when it only stays reachable."""

import functools
import struct
from binascii import crc32
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import boot, crypto
from camera_agent.agent import Agent
from camera_agent.guard import plan
from camera_agent.pointer import (
    FILES_ONLY,
    GAVE_UP,
    PROBATION,
    SAFE,
    Pointer,
    decode_pointer,
    newest,
    release_mark,
    why_code,
)
from tests.agent import agent_cuts
from tests.agent.agent_kit import agent_release as signed_agent
from tests.agent.core_kit import SIGNER, Bench, CoreHal, model_release, settings_of
from tests.agent.cut_bench import Verdict
from tests.agent.update_kit import BLOCK, MemoryFiles, Release

CAUSES: Final = ("power-on", "hard", "watchdog", "deepsleep", "soft", "brown-out", "unknown")


class Facts(NamedTuple):
    """A slot that is in order."""

    epoch: int = 1
    sequence: int = 1
    mark: bytes = release_mark("agent-1")


def pointer(**fields: Any) -> Any:
    return Pointer().but(**fields)


def slots(a: Facts | None = None, b: Facts | None = None) -> Any:
    return lambda number: (a, b)[number - 1]


# --- the plan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "cause", "slot", "safe", "failures"),
    [
        (pointer(counter=1), "soft", 0, False, 0),
        (pointer(counter=1, confirmed=1), "soft", 1, False, 0),
        (pointer(counter=1, confirmed=1, open=1), "watchdog", 1, False, 3),
        (pointer(counter=1, confirmed=1, open=1), "power-on", 1, False, 1),
        (pointer(counter=1, confirmed=1, open=0, failures=6), "watchdog", 1, False, 6),
        (pointer(counter=1, confirmed=1, open=1, failures=6), "watchdog", 1, True, 9),
        (pointer(counter=1, confirmed=1, open=1, failures=8), "power-on", 1, True, 9),
        (pointer(counter=1, confirmed=1, open=0, failures=9), "power-on", 1, True, 9),
        (pointer(counter=1, confirmed=1, open=1, failures=16), "soft", 0, True, 18),
        (pointer(counter=1, confirmed=1, open=0, failures=18), "soft", 0, True, 18),
    ],
)
def test_failed_starts_lead_to_safe_mode_and_then_to_the_files_on_the_drive(
    known: Any, cause: str, slot: int, safe: bool, failures: int
) -> None:
    made = plan(known, slots(Facts()), cause)
    assert (made.slot, made.safe) == (slot, safe)
    assert (made.pointer or known).failures == failures


def test_a_camera_that_is_stuck_in_safe_mode_wears_out_nothing() -> None:
    stuck = pointer(counter=40, confirmed=1, open=1, failures=FILES_ONLY)
    assert plan(stuck, slots(Facts()), "watchdog").pointer is None


def test_waking_from_deep_sleep_writes_nothing_and_counts_nothing() -> None:
    known = pointer(counter=3, confirmed=1, open=0)
    assert plan(known, slots(Facts()), "deepsleep").pointer is None
    assert (
        plan(pointer(counter=3, confirmed=1, open=1, failures=3), slots(Facts()), "deepsleep").pointer is None
    )


@pytest.mark.parametrize(
    ("cause", "attempts", "why", "reason"),
    [
        ("watchdog", 2, 0, "trial-hung"),
        ("soft", 2, 0, "trial-crashed"),
        ("soft", GAVE_UP, why_code("connection-lost"), "connection-lost"),
    ],
)
def test_a_trial_that_started_twice_or_gave_itself_up_is_over_and_says_why(
    cause: str, attempts: int, why: int, reason: str
) -> None:
    known = pointer(counter=9, confirmed=1, trial=2, attempts=attempts, why=why, sequence=1)
    newer = Facts(sequence=2, mark=release_mark("agent-2"))
    made = plan(known, slots(Facts(), newer), cause)
    assert (made.slot, made.trial, made.ended) == (1, False, (2, reason))
    assert made.pointer.failed == newer.mark
    assert made.pointer.failures == 0, "it was the trial that failed"


def test_the_first_trial_of_all_goes_back_to_the_files() -> None:
    made = plan(pointer(counter=2, trial=1, attempts=2), slots(Facts()), "watchdog")
    assert (made.slot, made.ended) == (0, (1, "trial-hung"))


def test_without_a_record_an_agent_that_is_there_is_tried() -> None:
    """The drive was formatted, flash behind it was not."""
    made = plan(None, slots(Facts()), "power-on")
    assert (made.slot, made.trial) == (1, True)


RECORDS = st.builds(
    pointer,
    counter=st.integers(0, 2**31),
    confirmed=st.integers(0, 2),
    attempts=st.integers(0, 255),
    flags=st.integers(0, 1),
    epoch=st.integers(0, 3),
    sequence=st.integers(0, 3),
    why=st.integers(0, 255),
    failures=st.integers(0, 255),
    open=st.integers(0, 1),
).flatmap(lambda one: st.sampled_from([one.but(trial=n) for n in range(3) if n == 0 or n != one.confirmed]))
FOUND = st.one_of(st.none(), st.builds(Facts, st.integers(0, 3), st.integers(0, 3)))


@given(st.one_of(st.none(), RECORDS), FOUND, FOUND, st.sampled_from(CAUSES))
def test_whatever_the_record_says_only_an_agent_that_is_in_order_starts(
    known: Any, a: Facts | None, b: Facts | None, cause: str
) -> None:
    made = plan(known, slots(a, b), cause)
    assert made.slot == 0 or (a, b)[made.slot - 1] is not None
    assert not (made.trial and made.safe)
    if made.trial:
        assert made.pointer is not None, "its attempt is counted before it starts"
        assert made.pointer.trial == made.slot
        assert made.pointer.attempts >= 1


@given(
    st.one_of(st.none(), RECORDS),
    FOUND,
    FOUND,
    st.lists(st.sampled_from(CAUSES[:3]), min_size=25, max_size=25),
)
def test_a_camera_that_crashes_at_every_start_ends_in_safe_mode_whatever_it_had(
    known: Any, a: Facts | None, b: Facts | None, causes: list[str]
) -> None:
    made = None
    for cause in causes:
        made = plan(known, slots(a, b), cause)
        known = made.pointer or known
    assert made is not None
    if "power-on" not in causes[-20:]:
        assert made.safe


# --- the camera -------------------------------------------------------------------------------------------


def agent_release(release: str, sequence: int = 1) -> Release:
    return signed_agent(SIGNER, release, sequence)


class Camera(Bench):
    """A camera with slots for its agent, which starts as boards do: first the guard, then the agent."""

    def __init__(self, hal: CoreHal | None = None, **changes: Any) -> None:
        if hal is None:
            hal = CoreHal()
            hal.files = MemoryFiles().agent_slots()
        super().__init__(hal, **changes)
        self.facts = boot.blank_facts()
        boot.choose_from(self.hal.files, self.facts, self.hal.cause, lambda *_: True)
        self.agent = Agent(self.hal, settings_of(**changes), self.facts)

    def again(self, cause: str = "soft") -> "Camera":
        """The next start."""
        self.hal.cause = cause
        self.hal.loaded.clear()
        self.hal.now = 0
        self.broker.published.clear()
        camera = Camera(self.hal)
        camera.start()
        return camera

    def goodbye(self) -> "Camera":
        """It restarts because it means to."""
        self.agent.stop()
        return self.again()

    @property
    def record(self) -> Any:
        copies = [decode_pointer(region.seen()) for region in (self.hal.files.boot_0, self.hal.files.boot_1)]
        which = newest(*copies)
        return None if which is None else copies[which]


def started(**changes: Any) -> Camera:
    camera = Camera(interval_ms=5000, batch_ms=60_000, telemetry_s=600, **changes)
    camera.start()
    return camera


def test_a_start_that_lasts_a_minute_was_a_good_one() -> None:
    camera = started()
    assert (camera.record.open, camera.record.failures) == (1, 0)
    camera.run(61)
    assert (camera.record.open, camera.record.failures) == (0, 0)
    writes = len(camera.hal.files.boot_0.writes) + len(camera.hal.files.boot_1.writes)
    assert writes == 2, "one when it starts, one when that has gone well"
    camera.run(60)
    assert len(camera.hal.files.boot_0.writes) + len(camera.hal.files.boot_1.writes) == writes


def test_three_crashes_in_a_row_lead_to_a_camera_that_is_reachable_and_says_so() -> None:
    camera = started()
    for cause in ("watchdog", "soft", "hard"):
        camera = camera.again(cause)
        camera.run(3)
    assert "safe-mode" in camera.status()["problems"]
    assert camera.led() == ("cyan", "double-blink")
    captures = camera.hal.captures
    camera.run(30)
    assert camera.hal.captures == captures, "no picture is taken"
    assert camera.hal.loaded == [], "and no model loaded"


def test_a_flickering_supply_is_no_broken_camera() -> None:
    camera = started()
    for _ in range(8):
        camera = camera.again("power-on")
    assert "safe-mode" not in camera.run(3).status()["problems"]
    assert "safe-mode" in camera.again("power-on").run(3).status()["problems"]


def test_restarts_that_are_meant_do_not_count() -> None:
    camera = started()
    for _ in range(10):
        camera = camera.run(5).goodbye()
    assert camera.record.failures == 0


def in_safe_mode() -> Camera:
    camera = started()
    for _ in range(3):
        camera = camera.again("watchdog")
    camera.run(3)
    assert camera.agent.agents.is_safe
    return camera


def test_safe_mode_lasts_over_a_power_cut_and_is_tried_to_leave_after_an_hour() -> None:
    camera = in_safe_mode().run(61).again("power-on").run(61)
    assert camera.agent.agents.is_safe
    camera.hal.now += 3_600_000
    camera.run(10)
    assert camera.agent.is_over
    camera = camera.goodbye()
    assert not camera.agent.agents.is_safe
    assert camera.record.failures == PROBATION
    assert camera.run(61).record.failures == 0, "and it went well"


def test_one_more_crash_after_safe_mode_leads_back_there() -> None:
    camera = in_safe_mode()
    camera.hal.now += 3_600_000
    camera = camera.run(10).goodbye()
    assert not camera.agent.agents.is_safe
    assert camera.again("watchdog").agent.agents.is_safe


def test_a_camera_in_safe_mode_takes_a_model_and_tries_it_in_an_ordinary_start() -> None:
    camera = in_safe_mode()
    camera.desire(model_release("m-1"), 2)
    camera.run(20)
    assert camera.updates()[-1] == ("trial", None)
    assert camera.agent.is_over
    camera = camera.goodbye().run(20)
    assert camera.updates()[-1] == ("confirmed", None)
    assert "safe-mode" not in camera.status()["problems"]


def test_an_agent_is_installed_tried_confirmed_and_told() -> None:
    camera = started().run(3)
    agent = agent_release("agent-1")
    camera.desire(agent, 2)
    camera.run(15)
    assert camera.updates()[-1] == ("trial", None)
    assert camera.agent.is_over
    camera = camera.goodbye()
    assert (camera.facts["slot"], camera.facts["trial"]) == (1, True)
    camera.run(30)
    assert camera.updates() == [("trial", None), ("confirmed", None)]
    assert camera.sent("update")[-1]["digest"] == agent.digest
    assert camera.status()["agent_release"]["id"] == "agent-1"
    camera = camera.again()
    assert (camera.facts["slot"], camera.facts["trial"]) == (1, False)
    camera.run(3).desire(agent, 3)
    assert camera.run(5).updates()[-1] == ("confirmed", None), "it has it already"


def on_trial(before: bool = True) -> Camera:
    """An agent is on trial, behind a confirmed one if there is one `before`."""
    camera = started().run(3)
    for number in (1, 2) if before else (2,):
        camera.desire(agent_release(f"agent-{number}", number), number)
        camera = camera.run(15).goodbye()
        assert camera.facts["trial"]
        if number == 1:
            camera.run(30)
            assert camera.updates()[-1] == ("confirmed", None)
    return camera


@pytest.mark.parametrize("before", [True, False], ids=["an agent", "the files"])
@pytest.mark.parametrize(("cause", "reason"), [("watchdog", "trial-hung"), ("soft", "trial-crashed")])
def test_an_agent_that_hangs_or_crashes_gives_way_to_what_was_before(
    before: bool, cause: str, reason: str
) -> None:
    camera = on_trial(before).again(cause).again(cause)
    assert camera.facts["slot"] == (1 if before else 0)
    camera.run(5)
    assert ("reverted", reason) in camera.updates()
    assert camera.sent("update")[0]["release"] == "agent-2"
    running = camera.status()["agent_release"]
    assert running["id"] == "agent-1" if before else running is None


def test_an_agent_whose_parts_raise_again_and_again_gives_up_by_itself() -> None:
    camera = on_trial()
    for n in range(5):
        camera.agent.trouble.report("vision", ValueError(str(n)))
    camera.run(5)
    assert camera.agent.is_over
    camera = camera.goodbye().run(5)
    assert ("reverted", "trial-crashed") in camera.updates()


def test_an_agent_that_never_gets_a_connection_gives_up_by_itself() -> None:
    camera = on_trial()
    camera.hal.network = False
    camera.run(3)
    camera.hal.now += 900_000
    camera.run(10)
    assert camera.agent.is_over
    camera.hal.network = True
    camera = camera.goodbye().run(5)
    assert ("reverted", "connection-lost") in camera.updates()


def test_an_agent_needs_a_receipt_or_time_before_it_counts_as_good() -> None:
    camera = on_trial()
    camera.receipts = False
    assert camera.run(100).updates()[-1] == ("trial", None)
    assert camera.run(40).updates()[-1] == ("confirmed", None), (
        "fleetd is not there, but the connection holds"
    )


def test_models_wait_while_an_agent_is_on_trial() -> None:
    camera = on_trial()
    camera.receipts = False
    camera.run(3).desire(model_release("m-1"), 9)
    camera.run(60)
    assert "m-1" not in {message["release"] for message in camera.sent("update")}
    camera.run(120)
    assert [it for it in camera.sent("update") if it["release"] == "m-1"][-1]["state"] == "confirmed"


def test_a_pause_does_not_count_against_an_agent_on_trial() -> None:
    camera = on_trial()
    for _ in range(4):
        camera.run(3)
        camera.agent.pause()
        camera = camera.again("watchdog")
        assert camera.facts["trial"]


def test_an_old_agent_is_refused_and_a_camera_without_slots_for_one_says_so() -> None:
    camera = on_trial().run(30)
    camera.desire(agent_release("agent-0", 1), 5)
    assert camera.run(10).updates()[-1] == ("rejected", "sequence-too-old")
    bare = Bench().start().run(2)
    assert "update-agent" not in bare.status()["capabilities"]
    bare.desire(agent_release("agent-1"), 2)
    assert bare.run(10).updates()[-1] == ("rejected", "unsupported-kind")


def test_a_confirmed_agent_that_is_damaged_gives_way_to_the_one_before_or_the_files() -> None:
    camera = on_trial().run(30)
    assert camera.record.confirmed == 2
    files = camera.hal.files
    files.agent_b.settled[13000] ^= 1
    camera = camera.again().run(3)
    assert camera.facts["slot"] == 1
    assert "slot-damaged" in camera.status()["problems"]
    files.agent_a.settled[13000] ^= 1
    camera = camera.again().run(3)
    assert camera.facts["slot"] == 0


def test_a_record_that_cannot_be_written_keeps_a_trial_from_running() -> None:
    camera = on_trial()
    camera.hal.files.boot_0.refuses = camera.hal.files.boot_1.refuses = "storage-error"
    camera = camera.again().run(3)
    assert not camera.facts["trial"]
    assert "boot-record-unusable" in camera.status()["problems"]


@pytest.fixture
def _every_signature_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verify = functools.cache(crypto.verify)
    monkeypatch.setattr(crypto, "verify", lambda *what: verify(*map(bytes, what)))


@pytest.mark.usefixtures("_every_signature_is_checked_once")
@pytest.mark.parametrize("scenario", agent_cuts.SCENARIOS)
@pytest.mark.parametrize("name", agent_cuts.BENCHES)
def test_after_a_cut_some_agent_starts_and_the_update_comes_to_its_end(
    name: str, scenario: str, tmp_path: Path
) -> None:
    """A sample; `make faults` cuts at every operation, and up to five times in a row."""
    bench = agent_cuts.AgentBench(name, tmp_path)
    case = bench.prepare(scenario)
    every = bench.cuts(case, 7)
    assert len(every) >= 70
    for cut in every[:: max(1, len(every) // 25)]:
        assert bench.judge(case, [cut]) == Verdict.OK, cut


def test_what_boot_reads_of_a_slot_is_bounded_and_checked() -> None:
    files = MemoryFiles().agent_slots()
    buffer = memoryview(bytearray(BLOCK))

    def look(head: bytes, blob: bytes) -> Any:
        files.agent_a.settled[: len(head) + len(blob)] = head + blob
        return boot._look(1, files.agent_a, buffer)

    def head(blob: bytes, length: int | None = None) -> bytes:
        return struct.pack("<4sIII", b"FSL1", len(blob) if length is None else length, crc32(blob), 0)

    good = agent_release("agent-1")
    files.agent_a.settled[12288 : 12288 + len(good.content)] = good.content
    assert look(head(good.blob), good.blob).release == "agent-1"
    assert look(head(good.blob, 2**32 - 1), good.blob) is None
    assert look(head(good.blob, 8193), good.blob) is None
    for text in (
        b"",
        b"[]",
        b"{}",
        b'{"release":1}',
        b"\xff",
        b'{"release":"a","epoch":1,"sequence":1,"content":3}',
    ):
        blob = good.blob[:76] + text
        assert look(head(blob), blob) is None
    assert SAFE < FILES_ONLY
