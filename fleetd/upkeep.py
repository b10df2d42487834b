"""Keeping the database at its size: old rows become sums per minute and hour, old sums and notes go.

Each step is one short transaction, so that landing never waits long; `step` says whether there is more to do.
"""

from dataclasses import dataclass

from fleetd.logs import get_logger
from fleetd.ports import Clock, Store

log = get_logger(__name__)

DAY_S = 86_400.0
CHUNKS_AT_ONCE = 8  # in one go of the job
ROWS_AT_ONCE = 5_000
STATISTICS_S = 3_600.0
BOOTS_KEPT_DAYS = 90.0  # at least: a camera may come back after that long and repeat what it holds


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how many days what is kept; 0 keeps it for ever."""

    raw_days: float = 90.0
    minute_days: float = 365.0
    hour_days: float = 0.0
    event_days: float = 365.0


class Upkeep:
    """The housekeeping job."""

    def __init__(self, store: Store, clock: Clock, keeping: Keeping) -> None:
        self._store = store
        self._clock = clock
        self._keeping = keeping
        self._learned_at: float | None = None

    def step(self) -> bool:
        """Does a little of what is due; True when there is more."""
        more = self._roll_up()
        more = self._drop() or more
        if not more and self._due_to_learn():
            with self._store.transaction() as work:
                work.upkeep.refresh_statistics()
            self._learned_at = self._clock()
        return more

    def _roll_up(self) -> bool:
        if not self._keeping.raw_days:
            return False
        before = self._clock() - self._keeping.raw_days * DAY_S
        done = 0
        for kind in ("results", "telemetry"):
            for _ in range(CHUNKS_AT_ONCE):
                with self._store.transaction() as work:
                    rows = work.upkeep.roll_up(kind, before)
                if not rows:
                    break
                done += rows
        if done:
            log.info("rolled_up", rows=done, older_than_days=self._keeping.raw_days)
        return done > 0

    def _drop(self) -> bool:
        keeping, now = self._keeping, self._clock()
        gone = 0
        with self._store.transaction() as work:
            if keeping.minute_days:
                gone += work.upkeep.drop_sums(60, now - keeping.minute_days * DAY_S, ROWS_AT_ONCE)
            if keeping.hour_days:
                gone += work.upkeep.drop_sums(3600, now - keeping.hour_days * DAY_S, ROWS_AT_ONCE)
            if keeping.event_days:
                gone += work.upkeep.drop_notes(now - keeping.event_days * DAY_S, ROWS_AT_ONCE)
            if keeping.raw_days:
                longest = max(keeping.raw_days, BOOTS_KEPT_DAYS)
                gone += work.upkeep.drop_boots(now - longest * DAY_S, ROWS_AT_ONCE)
        return gone > 0

    def _due_to_learn(self) -> bool:
        return self._learned_at is None or abs(self._clock() - self._learned_at) > STATISTICS_S
