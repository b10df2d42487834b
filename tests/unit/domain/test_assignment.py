"""One camera's part of a rollout: what moves it, and what must not."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleetd.domain.assignment import (
    BUSY,
    CANCELLED,
    CONFIRMED,
    FAILED,
    HARM,
    LOST,
    NEXT,
    OFFERED,
    OPEN,
    PENDING,
    REJECTED,
    REVERTED,
    STAGES,
    TERMINAL,
    TIMED_OUT,
    TRANSFERRING,
    TRIAL,
    VERIFYING,
    Change,
    Watched,
    advance,
    fresh_deadline,
    may_follow,
    read_boot,
    read_clock,
    read_status,
)
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import Assignment, AssignmentState, UpdateReport

RIGHT, WRONG = "c" * 64, "e" * 64
BOOT, NEW_BOOT = "0" * 16, "1" * 16
NOW = 1_700_000_000.0
SILENCE = 600.0
RULES = PresenceRules()
REPORTED = ("transferring", "verifying", "trial", "confirmed", "reverted", "failed", "rejected")


def watched(state: AssignmentState = OFFERED, **facts: Any) -> Watched:
    """Camera 7's part of rollout 1: release model-5 offered as generation 3."""
    mine = {name: facts.pop(name) for name in list(facts) if name in Assignment.__dataclass_fields__}
    assignment = Assignment(
        id=1,
        rollout_id=1,
        camera_id=7,
        camera="cam-7",
        release_id="model-5",
        wave=0,
        state=state,
        reason=mine.get("reason"),
        detail=None,
        generation=mine.get("generation", 3),
        blocks_done=mine.get("blocks_done"),
        blocks_total=mine.get("blocks_total"),
        created_at=NOW,
        offered_at=NOW,
        changed_at=NOW,
        deadline_at=mine.get("deadline_at", NOW + SILENCE),
        finished_at=None,
    )
    base = Watched(
        assignment=assignment,
        content_sha256=RIGHT,
        silence_s=SILENCE,
        desired_generation=3,
        desired_release="model-5",
        sent_generation=3,
        reported_boot=BOOT,
        boot=BOOT,
        connected=True,
        seen_at=NOW,
        reported_generation=2,
        running="model-4",
        running_digest="4" * 64,
        trial=None,
    )
    return replace(base, **facts)


def report(state: str, **facts: Any) -> UpdateReport:
    base = UpdateReport(
        id=1,
        camera_id=7,
        boot=BOOT,
        seq=1,
        received_at=NOW + 1,
        generation=3,
        release_id="model-5",
        state=state,
        reason=None,
        detail=None,
        digest=RIGHT if state == "confirmed" else None,
        blocks_done=None,
        blocks_total=None,
    )
    return replace(base, **facts)


def changed(before: Watched, change: Change) -> Watched:
    """The assignment as the store has it after the change."""
    done, total = change.blocks or (before.assignment.blocks_done, before.assignment.blocks_total)
    assignment = replace(
        before.assignment,
        state=change.state,
        reason=change.reason,
        detail=change.detail,
        blocks_done=done,
        blocks_total=total,
        deadline_at=change.deadline_at,
    )
    return replace(before, assignment=assignment)


def test_every_state_has_an_owner_a_deadline_and_a_next_action() -> None:
    assert STAGES.keys() == NEXT.keys() == set(AssignmentState)
    assert all(stage.owner and stage.deadline and stage.next_action for stage in STAGES.values())
    assert set(AssignmentState) == OPEN | TERMINAL
    assert not OPEN & TERMINAL
    assert HARM < TERMINAL


def test_nothing_follows_an_end() -> None:
    assert all(not NEXT[state] for state in TERMINAL)
    assert all(NEXT[state] for state in OPEN)


def test_there_are_only_two_ways_back_and_none_from_a_trial() -> None:
    order = [PENDING, OFFERED, TRANSFERRING, VERIFYING, TRIAL]
    back = {(a, b) for n, a in enumerate(order) for b in order[:n] if may_follow(a, b)}
    assert back == {
        (OFFERED, PENDING),
        (TRANSFERRING, PENDING),
        (TRANSFERRING, OFFERED),
        (VERIFYING, PENDING),
        (VERIFYING, OFFERED),
    }


@pytest.mark.parametrize("state", sorted(TERMINAL))
@pytest.mark.parametrize("said", REPORTED)
def test_reports_after_the_end_change_nothing(state: AssignmentState, said: str) -> None:
    assert advance(watched(state), report(said)) is None


def test_an_update_goes_through_its_steps() -> None:
    part = watched()
    for said in ("transferring", "verifying", "trial", "confirmed"):
        change = advance(part, report(said))
        assert change is not None
        assert change.state == said
        part = changed(part, change)
    assert part.assignment.deadline_at is None


@pytest.mark.parametrize("digest", [WRONG, None])
@pytest.mark.parametrize("state", sorted(OPEN))
def test_confirmed_with_another_digest_is_not_success(state: AssignmentState, digest: str | None) -> None:
    """(b) Success is the target's digest and the confirmation, together."""
    assert advance(watched(state), report("confirmed", digest=digest)) is None


@pytest.mark.parametrize("said", REPORTED)
@pytest.mark.parametrize(
    "other",
    [{"camera_id": 8}, {"release_id": "model-4"}, {"generation": 2}, {"generation": 4}, {"state": "winning"}],
)
def test_reports_about_something_else_change_nothing(said: str, other: dict[str, Any]) -> None:
    """(s) Another camera's report, an older offer, a generation that was never given, an unknown word."""
    assert advance(watched(TRANSFERRING), replace(report(said), **other)) is None


def test_a_change_of_configuration_during_an_update_does_not_lose_its_reports() -> None:
    part = watched(TRANSFERRING, desired_generation=5)
    assert advance(part, report("confirmed", generation=5)) == Change(CONFIRMED)
    assert advance(part, report("confirmed", generation=3)) == Change(CONFIRMED)
    assert advance(part, report("confirmed", generation=6)) is None


def test_nothing_counts_for_a_camera_that_was_not_offered_anything() -> None:
    part = watched(PENDING, generation=None)
    assert all(advance(part, report(said)) is None for said in REPORTED)
    assert (
        read_status(replace(part, running="model-5", running_digest=RIGHT, reported_generation=3), NOW)
        is None
    )


def test_a_camera_may_answer_before_the_offer_is_noted() -> None:
    change = advance(watched(PENDING), report("transferring"))
    assert change is not None
    assert change.state is TRANSFERRING


def test_steps_that_were_never_heard_of_are_skipped() -> None:
    assert advance(watched(OFFERED), report("confirmed")) == Change(CONFIRMED)
    change = advance(watched(OFFERED), report("reverted", reason="trial-crashed", detail="twice"))
    assert change == Change(REVERTED, "trial-crashed", "twice")


@pytest.mark.parametrize(
    ("state", "said"),
    [(VERIFYING, "transferring"), (TRIAL, "transferring"), (TRIAL, "verifying"), (TRIAL, "trial")],
)
def test_a_late_report_renews_the_deadline_and_changes_no_state(state: AssignmentState, said: str) -> None:
    change = advance(watched(state), report(said, received_at=NOW + 50))
    assert change is not None
    assert change.state is state
    assert change.deadline_at == NOW + 50 + SILENCE


def test_the_same_report_read_twice_is_one_change() -> None:
    """(g)"""
    said = report("transferring", blocks_done=3, blocks_total=9)
    part = watched()
    change = advance(part, said)
    assert change is not None
    assert advance(changed(part, change), said) is None


def test_progress_grows_and_a_late_report_does_not_turn_it_back() -> None:
    part = watched(TRANSFERRING, blocks_done=5, blocks_total=9)
    more = advance(part, report("transferring", blocks_done=6, blocks_total=9))
    assert more is not None
    assert more.blocks == (6, 9)
    late = advance(part, report("transferring", blocks_done=2, blocks_total=9))
    assert late is not None
    assert late.blocks is None
    other = advance(part, report("transferring", blocks_done=1, blocks_total=40))
    assert other is not None
    assert other.blocks == (1, 40)  # the full transfer after a patch that did not fit


def test_what_was_said_before_the_offer_was_taken_back_does_not_revive_it() -> None:
    withdrawn = watched(PENDING, desired_generation=4, desired_release=None, deadline_at=None)
    assert advance(withdrawn, report("transferring")) is None
    assert advance(withdrawn, report("verifying")) is None
    trial = advance(withdrawn, report("trial"))
    assert trial is not None
    assert trial.state is TRIAL
    assert advance(withdrawn, report("confirmed")) == Change(CONFIRMED)


@pytest.mark.parametrize("said", ["failed", "reverted"])
def test_a_camera_that_stopped_because_it_was_asked_to_has_not_failed(said: str) -> None:
    withdrawn = watched(PENDING, desired_generation=4, desired_release=None, deadline_at=None)
    assert advance(withdrawn, report(said, reason="operator-cancelled")) is None
    change = advance(withdrawn, report(said, reason="trial-hung"))
    assert change is not None
    assert change.state == said


def test_a_camera_that_still_asks_for_the_manifest_has_not_failed() -> None:
    """The broker forgot it; it is published again, and the camera goes on by itself."""
    said = report("failed", reason="unknown-release")
    change = advance(watched(TRANSFERRING), said)
    assert change == Change(OFFERED, "unknown-release", deadline_at=NOW + 1 + SILENCE)
    for state in (PENDING, OFFERED, TRIAL):
        assert advance(watched(state), said) is None
    assert advance(watched(PENDING, desired_release=None), said) is None


@pytest.mark.parametrize("state", sorted(OPEN))
def test_a_status_that_names_the_confirmed_release_is_success(state: AssignmentState) -> None:
    """(c) The report of the confirmation got lost; the camera's status says it as well."""
    part = watched(state, running="model-5", running_digest=RIGHT, reported_generation=3)
    assert read_status(part, NOW) == Change(CONFIRMED)


@pytest.mark.parametrize(
    "other",
    [
        {"running_digest": WRONG},
        {"running": "model-4"},
        {"reported_generation": 2},
        {"reported_generation": 4},
        {"reported_generation": None},
        {"running": None, "running_digest": None},
    ],
)
def test_a_status_that_names_something_else_is_not_success(other: dict[str, Any]) -> None:
    """(b) Being there again, or running something, is no success."""
    facts = {"running": "model-5", "running_digest": RIGHT, "reported_generation": 3, **other}
    assert read_status(watched(TRIAL, **facts), NOW) is None


def test_a_release_on_trial_is_not_yet_success() -> None:
    """(q)"""
    change = read_status(watched(VERIFYING, trial="model-5", reported_generation=3), NOW)
    assert change is not None
    assert change.state is TRIAL
    assert TRIAL not in TERMINAL
    assert read_status(watched(TRIAL, trial="model-5", reported_generation=3), NOW) is None


@pytest.mark.parametrize("state", [TRANSFERRING, VERIFYING])
def test_a_camera_that_boots_its_old_version_mid_download_is_offered_it_again(state: AssignmentState) -> None:
    """(a) It returns to offered, and is never done."""
    change = read_boot(watched(state, boot=NEW_BOOT), NOW)
    assert change is not None
    assert change.state is OFFERED
    assert change.reason == "rebooted"
    again = changed(watched(state, boot=NEW_BOOT), change)
    assert read_boot(again, NOW) is None
    resumed = advance(again, report("transferring", boot=NEW_BOOT))
    assert resumed is not None
    assert resumed.state is TRANSFERRING
    assert read_boot(replace(changed(again, resumed), reported_boot=NEW_BOOT), NOW) is None


def test_a_boot_during_the_trial_waits_for_what_the_camera_says() -> None:
    assert read_boot(watched(TRIAL, boot=NEW_BOOT), NOW) is None
    assert read_boot(watched(VERIFYING, boot=NEW_BOOT, trial="model-5"), NOW) is None
    assert read_boot(watched(VERIFYING, boot=None), NOW) is None
    assert read_boot(watched(VERIFYING, boot=NEW_BOOT, reported_boot=None), NOW) is None


@pytest.mark.parametrize("state", sorted(BUSY))
def test_silence_after_an_offer_was_taken_up_is_lost(state: AssignmentState) -> None:
    """(o)"""
    part = watched(state)
    assert read_clock(part, NOW + SILENCE - 1, RULES) is None
    change = read_clock(part, NOW + SILENCE, RULES)
    assert change is not None
    assert change.state is LOST
    assert LOST in HARM


def test_an_offer_to_a_camera_that_is_away_has_no_deadline() -> None:
    away = watched(OFFERED, connected=False, seen_at=NOW - 3600)
    change = read_clock(away, NOW, RULES)
    assert change == Change(OFFERED)
    waiting = changed(away, change)
    assert read_clock(waiting, NOW + 30 * 86400, RULES) is None
    back = replace(waiting, connected=True, seen_at=NOW + 100)
    found = read_clock(back, NOW + 100, RULES)
    assert found == Change(OFFERED, deadline_at=NOW + 100 + SILENCE)


def test_a_camera_that_is_there_and_does_not_take_the_offer_times_out() -> None:
    later = NOW + SILENCE
    change = read_clock(watched(OFFERED, seen_at=later), later, RULES)
    assert change is not None
    assert change.state is TIMED_OUT
    assert TIMED_OUT in HARM


def test_a_camera_is_not_blamed_for_an_offer_that_the_broker_does_not_have() -> None:
    later = NOW + SILENCE
    change = read_clock(watched(OFFERED, seen_at=later, sent_generation=2), later, RULES)
    assert change == Change(OFFERED, deadline_at=later + SILENCE)


def test_a_busy_camera_without_a_deadline_gets_one() -> None:
    change = read_clock(watched(TRIAL, deadline_at=None), NOW, RULES)
    assert change == Change(TRIAL, deadline_at=NOW + SILENCE)


@pytest.mark.parametrize("state", sorted(TERMINAL | {PENDING}))
def test_the_clock_changes_nothing_that_nobody_waits_for(state: AssignmentState) -> None:
    assert read_clock(watched(state), NOW + 10 * SILENCE, RULES) is None


def test_time_that_fleetd_was_away_is_given_back() -> None:
    """(f) Also when the clock was set: by years, in either direction."""
    later = NOW + 4 * 365 * 86400
    change = fresh_deadline(watched(TRIAL), later)
    assert change == Change(TRIAL, deadline_at=later + SILENCE)
    assert read_clock(changed(watched(TRIAL), change), later, RULES) is None
    assert fresh_deadline(watched(OFFERED, deadline_at=None), later) is None
    assert fresh_deadline(watched(LOST), later) is None


STATES = st.sampled_from(AssignmentState)
SAID = st.sampled_from((*REPORTED, "winning", ""))
REPORTS = st.builds(
    report,
    SAID,
    camera_id=st.sampled_from([7, 8]),
    boot=st.sampled_from([BOOT, NEW_BOOT]),
    received_at=st.floats(NOW, NOW + 5000),
    generation=st.integers(1, 5),
    release_id=st.sampled_from(["model-5", "model-4"]),
    digest=st.sampled_from([RIGHT, WRONG, None]),
    reason=st.sampled_from([None, "trial-crashed", "operator-cancelled", "unknown-release"]),
    blocks_done=st.integers(0, 9) | st.none(),
    blocks_total=st.just(9) | st.none(),
)


@given(STATES, REPORTS)
def test_any_report_in_any_state_is_legal_and_idempotent(state: AssignmentState, said: UpdateReport) -> None:
    before = watched(state)
    change = advance(before, said)
    if change is None:
        return
    assert change.state is state or may_follow(state, change.state)
    assert (change.deadline_at is not None) == (change.state in OPEN)
    if change.state is CONFIRMED:
        assert (said.digest, said.release_id, said.generation) == (RIGHT, "model-5", 3)
    assert advance(changed(before, change), said) is None


class AnyHistory(RuleBasedStateMachine):
    """Whatever a camera says, whenever: states stay legal, ends are final, success is earned."""

    def __init__(self) -> None:
        super().__init__()
        self.part = watched(OFFERED)
        self.now = NOW
        self.earned = False  # the camera has said the right things
        self.seen: list[UpdateReport] = []
        self.end: AssignmentState | None = None

    def take(self, change: Change | None) -> None:
        before = self.part.assignment.state
        if change is None:
            return
        assert before not in TERMINAL
        assert change.state is before or may_follow(before, change.state)
        self.part = changed(self.part, change)
        if change.state in TERMINAL:
            self.end = change.state

    def hear(self, said: UpdateReport) -> None:
        self.part = replace(self.part, reported_boot=said.boot)
        right = (said.camera_id, said.release_id, said.digest) == (7, "model-5", RIGHT)
        in_force = 3 <= said.generation <= self.part.desired_generation
        if right and in_force and said.state == "confirmed":
            self.earned = True
        self.take(advance(self.part, said))
        again = advance(self.part, said)
        assert again is None or again.state is self.part.assignment.state

    @rule(said=REPORTS)
    def report_arrives(self, said: UpdateReport) -> None:
        said = replace(said, received_at=self.now)
        self.seen.append(said)
        self.hear(said)

    @rule(
        said=st.sampled_from(REPORTED),
        reason=st.sampled_from([None, "trial-crashed", "operator-cancelled", "unknown-release"]),
        boot=st.sampled_from([BOOT, NEW_BOOT]),
    )
    def camera_speaks_of_its_offer(self, said: str, reason: str | None, boot: str) -> None:
        self.report_arrives(report(said, reason=reason, boot=boot, received_at=self.now))

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def old_report_arrives_again(self, data: st.DataObject) -> None:
        self.hear(data.draw(st.sampled_from(self.seen)))

    @rule(
        boot=st.sampled_from([BOOT, NEW_BOOT]),
        generation=st.integers(1, 5) | st.none(),
        running=st.sampled_from([("model-5", RIGHT), ("model-5", WRONG), ("model-4", RIGHT), (None, None)]),
        trial=st.sampled_from([None, "model-5", "model-4"]),
    )
    def status_arrives(
        self, boot: str, generation: int | None, running: tuple[str | None, str | None], trial: str | None
    ) -> None:
        self.part = replace(
            self.part,
            boot=boot,
            reported_generation=generation,
            running=running[0],
            running_digest=running[1],
            trial=trial,
            connected=True,
            seen_at=self.now,
        )
        self.look()

    @rule()
    def connection_breaks(self) -> None:
        self.part = replace(self.part, connected=False)
        self.look()

    @rule(seconds=st.floats(0, 3000))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.look()

    @rule(years=st.sampled_from([-4, 4]))
    def clock_is_set(self, years: int) -> None:
        self.now += years * 365 * 86400
        if self.part.assignment.state in OPEN:
            self.take(fresh_deadline(self.part, self.now))
        before = self.part.assignment.state
        self.look()
        assert self.part.assignment.state not in (LOST, TIMED_OUT) or before in (LOST, TIMED_OUT)

    @rule()
    def configuration_changes(self) -> None:
        self.part = replace(self.part, desired_generation=self.part.desired_generation + 1)

    @precondition(lambda self: self.part.assignment.state in (OFFERED, TRANSFERRING, VERIFYING))
    @rule()
    def rollout_halts(self) -> None:
        generation = self.part.desired_generation + 1
        self.part = replace(self.part, desired_release=None, desired_generation=generation)
        self.take(Change(PENDING, "halted"))

    @precondition(lambda self: self.part.assignment.state is PENDING)
    @rule()
    def rollout_resumes(self) -> None:
        generation = self.part.desired_generation + 1
        self.part = replace(self.part, desired_release="model-5", desired_generation=generation)
        self.take(Change(OFFERED, deadline_at=self.now + SILENCE))

    @precondition(lambda self: self.part.assignment.state in OPEN)
    @rule()
    def operator_cancels(self) -> None:
        self.take(Change(CANCELLED))

    def look(self) -> None:
        generation = self.part.reported_generation or 0
        says_so = (self.part.running, self.part.running_digest) == ("model-5", RIGHT)
        if says_so and 3 <= generation <= self.part.desired_generation:
            self.earned = True
        self.take(read_status(self.part, self.now) or read_boot(self.part, self.now))
        self.take(read_clock(self.part, self.now, RULES))
        assert read_boot(self.part, self.now) is None

    @invariant()
    def an_end_is_final(self) -> None:
        assert self.end is None or self.part.assignment.state is self.end

    @invariant()
    def success_is_earned(self) -> None:
        assert self.part.assignment.state is not CONFIRMED or self.earned

    @invariant()
    def what_is_under_way_is_asked_for(self) -> None:
        under_way = self.part.assignment.state in (OFFERED, TRANSFERRING, VERIFYING)
        assert not under_way or self.part.desired_release == "model-5"

    @invariant()
    def a_busy_camera_has_a_deadline_and_an_ended_one_has_none(self) -> None:
        state, deadline = self.part.assignment.state, self.part.assignment.deadline_at
        assert state not in BUSY or deadline is not None
        assert state not in TERMINAL | {PENDING} or deadline is None


AnyHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase


def test_what_a_rollout_counts_as_harm() -> None:
    assert frozenset({REVERTED, FAILED, TIMED_OUT, LOST}) == HARM
    assert REJECTED not in HARM
    assert FAILED in TERMINAL
