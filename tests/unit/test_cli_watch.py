"""Watching a rollout: what is printed, and that only a confirmed fleet is a success."""

import io
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fleetd.cli import watch
from fleetd.cli.errors import NOT_SUCCEEDED, CliError
from fleetd.cli.reasons import REASONS
from fleetd.cli.session import Session
from fleetd.domain.assignment import OPEN, TERMINAL
from fleetd.domain.records import AssignmentState, RolloutState
from fleetd.protocol.messages import UpdateReason

ROOT = Path(__file__).resolve().parents[2]


def part(
    camera: str, state: str, reason: str | None = None, detail: str | None = None, **more: Any
) -> dict[str, Any]:
    blocks: dict[str, Any] = {"blocks_done": None, "blocks_total": None}
    return {"camera": camera, "state": state, "reason": reason, "detail": detail, **blocks, **more}


def view(state: str, *parts: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    tally: dict[str, int] = {}
    for one in parts:
        tally[one["state"]] = tally.get(one["state"], 0) + 1
    rollout = {"id": 3, "release_id": "model-1", "state": state, "reason": reason}
    return {"rollout": rollout, "assignments": list(parts), "tally": tally}


@given(
    st.sampled_from([state.value for state in RolloutState]),
    st.lists(st.sampled_from([state.value for state in AssignmentState]), max_size=5),
)
def test_only_a_completed_rollout_without_a_bad_outcome_is_a_success(state: str, states: list[str]) -> None:
    shown = view(state, *(part(f"cam-{number}", one) for number, one in enumerate(states)))
    good = state == "completed" and set(states) <= {"confirmed", "superseded"}
    if good:
        watch.conclude(Session(), shown)
        return
    with pytest.raises(CliError) as caught:
        watch.conclude(Session(), shown)
    assert caught.value.exit_code == NOT_SUCCEEDED


def test_the_states_it_knows_are_those_of_the_lifecycle() -> None:
    assert {state.value for state in OPEN} == watch.OPEN
    assert watch.BUSY < watch.OPEN
    assert {state.value for state in TERMINAL} > watch.GOOD
    assert {state.value for state in RolloutState} > watch.ENDED


def test_a_bad_outcome_is_told_with_its_reason_its_detail_and_what_to_do() -> None:
    text = watch.explain(part("cam-1", "failed", "out-of-memory", "MemoryError: 812 KB\x1b[2J"))
    assert text.startswith("failed, out-of-memory: The model needs more memory than the camera has left.")
    assert r"(MemoryError: 812 KB\x1b[2J)" in text
    assert "smaller" in text
    assert watch.explain(part("cam-1", "failed", "made-up-later")) == "failed, made-up-later"
    assert watch.explain(part("cam-1", "failed")) == "failed"


def test_lines_are_printed_for_changes_only(capsys: pytest.CaptureFixture[str]) -> None:
    lines = watch._Lines(Session())
    lines.update(view("running", part("cam-1", "pending"), part("cam-2", "offered")))
    lines.update(view("running", part("cam-1", "pending"), part("cam-2", "offered")))
    lines.update(view("running", part("cam-1", "pending"), part("cam-2", "trial")))
    lines.update(view("halted", part("cam-1", "pending"), part("cam-2", "reverted", "boot-loop")))
    assert capsys.readouterr().out.splitlines() == [
        "cam-2  offered",
        "rollout 3 running: 1 offered, 1 pending",
        "cam-2  trial",
        "rollout 3 running: 1 pending, 1 trial",
        "cam-2  reverted (boot-loop)",
        "rollout 3 halted: 1 reverted, 1 pending",
    ]


def test_bars_appear_for_cameras_at_work_and_go_when_they_are_done() -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=100, legacy_windows=False)
    bars = watch._Bars(console)
    with bars:
        bars.update(
            view(
                "running",
                part("cam-[1]", "transferring", blocks_done=3, blocks_total=9),
                part("cam-2", "pending"),
            )
        )
        assert set(bars._tasks) == {"", "cam-[1]"}
        bars.update(view("running", part("cam-[1]", "confirmed"), part("cam-2", "trial")))
        assert set(bars._tasks) == {"", "cam-2"}
        busy = [part(f"cam-{number}", "verifying") for number in range(100)]
        bars.update(view("running", *busy))
        assert len(bars._tasks) == watch.BARS + 1
        bars.update(view("completed", part("cam-[1]", "confirmed"), part("cam-2", "confirmed")))
        assert set(bars._tasks) == {""}
    assert "rollout 3" in terminal.getvalue()


def test_every_reason_a_camera_may_give_is_explained() -> None:
    assert set(get_args(UpdateReason)) <= set(REASONS)
    for advice in REASONS.values():
        assert advice.meaning.endswith(".")
        assert advice.todo.endswith(".")


def test_the_document_has_the_same_table_of_reasons() -> None:
    text = (ROOT / "docs" / "updates.md").read_text(encoding="utf-8")
    rows = [f"| `{reason}` | {advice.meaning} | {advice.todo} |" for reason, advice in REASONS.items()]
    assert [row for row in rows if row not in text] == []
