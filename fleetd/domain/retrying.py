"""Trying again by itself: which failures deserve it, how often, and after how long.

Only what may go away by itself is tried again: a link that broke, a camera that was busy. What a camera *refused*, what
it went back from, and silence are never tried again without a person: the next attempt would do the same harm.
The budget is per camera and release, over all rollouts: leaving a group and coming back does not fill it up again.
"""

from typing import Final

from fleetd.domain.assignment import FAILED, PENDING, TIMED_OUT, TRIAL, Change, may_follow
from fleetd.domain.records import Assignment, RolloutSettings

RETRYABLE: Final = (
    "connection-lost",
    "busy",
    "low-power",
    "out-of-memory",
    "storage-error",
    "digest-mismatch",
    "unknown-release",
    "window-closed",
    "offer-not-taken",
)
MAX_RETRIES: Final = 20
MAX_DELAY_S: Final = 6 * 3600.0


def again(
    current: Assignment, change: Change, settings: RolloutSettings, spent: int, now: float
) -> Change | None:
    """What becomes of an assignment that just failed, when it is to be tried again; None when it is not.

    `spent`: how often this camera has failed with this release, this time included.
    """
    failed = change.state in (FAILED, TIMED_OUT) and change.reason in settings.retry_reasons
    if not failed or spent > settings.retries or current.state in (PENDING, TRIAL):
        return None
    if not may_follow(current.state, PENDING):
        return None
    delay = min(settings.retry_after_s * 2 ** min(spent - 1, 20), MAX_DELAY_S)
    detail = f"Attempt {spent} of {settings.retries + 1} failed; the next one begins in {delay:.0f} s."
    return Change(PENDING, change.reason, detail, retry_at=now + delay)
