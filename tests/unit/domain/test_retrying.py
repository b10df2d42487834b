"""Trying again by itself: only what may go away by itself, within a budget, later and later."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetd.domain.assignment import (
    FAILED,
    LOST,
    OPEN,
    PENDING,
    REJECTED,
    REVERTED,
    TRIAL,
    Change,
    may_follow,
)
from fleetd.domain.records import Assignment, AssignmentState, RolloutSettings
from fleetd.domain.retrying import MAX_DELAY_S, RETRYABLE, again

SETTINGS = RolloutSettings(retries=2, retry_after_s=60.0, retry_reasons=RETRYABLE)


def part(state: AssignmentState) -> Assignment:
    nothing = dict.fromkeys(
        (
            "reason",
            "detail",
            "generation",
            "blocks_done",
            "blocks_total",
            "offered_at",
            "deadline_at",
            "finished_at",
        )
    )
    facts = {"id": 1, "rollout_id": 1, "camera_id": 1, "camera": "cam-1", "release_id": "model-5", "wave": 0}
    return Assignment(**facts, **nothing, state=state, created_at=0.0, changed_at=0.0)  # type: ignore[arg-type]


def test_a_broken_link_is_tried_again_later_and_later_until_the_budget_is_spent() -> None:
    moving, broke = part(AssignmentState.TRANSFERRING), Change(FAILED, "connection-lost")
    first, second, third = (again(moving, broke, SETTINGS, spent, 1_000.0) for spent in (1, 2, 3))
    assert first is not None
    assert second is not None
    assert (first.state, first.reason, first.retry_at) == (PENDING, "connection-lost", 1_060.0)
    assert second.retry_at == 1_120.0
    assert third is None


@pytest.mark.parametrize(
    "change",
    [
        Change(LOST, "silent"),
        Change(REVERTED, "trial-hung"),
        Change(REJECTED, "wrong-board"),
        Change(FAILED, "signature-invalid"),
        Change(FAILED, None),
        Change(FAILED, "made-up-later"),
    ],
)
def test_silence_refusals_and_reverts_are_never_tried_again(change: Change) -> None:
    assert again(part(AssignmentState.TRANSFERRING), change, SETTINGS, 1, 0.0) is None


def test_only_reasons_that_were_chosen_count_and_without_a_budget_none() -> None:
    moving, broke = part(AssignmentState.TRANSFERRING), Change(FAILED, "busy")
    assert again(moving, broke, RolloutSettings(retries=2, retry_reasons=("low-power",)), 1, 0.0) is None
    assert again(moving, broke, RolloutSettings(), 1, 0.0) is None


@given(
    st.sampled_from(sorted(OPEN)),
    st.sampled_from(RETRYABLE),
    st.integers(1, 40),
    st.integers(0, 20),
    st.floats(1, MAX_DELAY_S),
)
def test_what_is_tried_again_is_a_legal_step_with_a_bounded_delay(
    state: AssignmentState, reason: str, spent: int, retries: int, delay: float
) -> None:
    settings = RolloutSettings(retries=retries, retry_after_s=delay, retry_reasons=RETRYABLE)
    found = again(part(state), Change(FAILED, reason), settings, spent, 0.0)
    if found is None:
        assert spent > retries or state in (PENDING, TRIAL)
    else:
        assert may_follow(state, found.state)
        assert found.retry_at is not None
        assert delay <= found.retry_at <= MAX_DELAY_S
