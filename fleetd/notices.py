"""The service that sends notices from the outbox: soon, in order, again when it fails, and not for ever."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from fleetd.errors import FleetError
from fleetd.logs import get_logger
from fleetd.ports import Clock, Store

log = get_logger(__name__)

BATCH: Final = 20
ATTEMPTS: Final = 8
FIRST_WAIT_S: Final = 15.0  # doubled each time: the last attempt is half an hour after the first
ERROR_CHARS: Final = 300

Sender = Callable[[Mapping[str, Any]], None]  # raises FleetError or OSError when it did not get through


class Notices:
    """`process` is a job. `senders` by channel."""

    def __init__(self, store: Store, senders: Mapping[str, Sender], clock: Clock = time.time) -> None:
        self._store = store
        self._senders = dict(senders)
        self._clock = clock

    def process(self) -> bool:
        """Sends what is due; True when there may be more."""
        with self._store.reading() as work:
            due = work.incidents.due_notices(self._clock(), BATCH)
        for notice in due:
            self._send(notice)
        return len(due) == BATCH

    def _send(self, notice: Mapping[str, Any]) -> None:
        attempts = notice["attempts"] + 1
        sender = self._senders.get(notice["channel"])
        if sender is None:
            self._mark(notice, attempts, error="this channel is not set up any more")
            return
        # Counted before it is sent: a crash in between may repeat a notice, but not without end.
        now = self._clock()
        again = now + FIRST_WAIT_S * 2 ** (attempts - 1) if attempts < ATTEMPTS else None
        self._mark(notice, attempts, next_at=again, error="being sent")
        try:
            sender(notice["body"])
        except (FleetError, OSError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"[:ERROR_CHARS]
            self._mark(notice, attempts, next_at=again, error=text)
            event = "notice_delayed" if again is not None else "notice_given_up"
            log.warning(event, channel=notice["channel"], incident=notice["incident_id"], error=text)
            return
        self._mark(notice, attempts, sent_at=self._clock())

    def _mark(
        self,
        notice: Mapping[str, Any],
        attempts: int,
        *,
        sent_at: float | None = None,
        next_at: float | None = None,
        error: str | None = None,
    ) -> None:
        with self._store.transaction() as work:
            work.incidents.mark_notice(
                notice["id"], attempts=attempts, sent_at=sent_at, next_at=next_at, error=error
            )
