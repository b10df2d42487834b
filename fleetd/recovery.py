"""The service that leads somebody from a silent camera to one that reports: diagnosis, guide, step by step.

It keeps how far they are, so that a break costs nothing and a web page could do the same as `fleetctl recover`. What
happens at the bench (USB, commands, the drive) is done by whoever asks; here it is only reported. Two things are not
taken on trust: that a camera is back, and which guide follows from what was seen.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetd.boards import BoardProfile, find, profiles
from fleetd.boards.guides import Guide, Step, guide_for
from fleetd.boards.lights import usual_looks
from fleetd.boards.usb import USB_STATES
from fleetd.domain.incidents import CameraFacts, Lane
from fleetd.domain.presence import Presence, PresenceRules
from fleetd.domain.records import Camera
from fleetd.domain.recovery import LED_STEP, LOG_ENTRIES, Recovery, is_back
from fleetd.errors import ConflictError, InvalidError, NotFoundError, UnknownCameraError
from fleetd.evidence import Looked, board_of, causes_of, gather
from fleetd.logs import get_logger
from fleetd.ports import Clock, Store, UnitOfWork
from fleetd.timeline import Moment, timeline

log = get_logger(__name__)

USB_TELLS: Final = ("bootloader", "interrupted", "rom")  # running firmware can mean anything: the light tells
SKIP: Final = "skip"
COLORS: Final = ("off", "red", "green", "blue", "cyan", "magenta", "yellow", "white", "unknown")
PATTERNS: Final = ("solid", "blink", "blink-fast", "double-blink", "cycle", "off", "unknown")


class UnknownRecoveryError(NotFoundError):
    """There is no recovery with that number."""

    code = "unknown_recovery"


@dataclass(frozen=True, slots=True)
class Way:
    """A recovery, the step that it is at, and the guide behind it."""

    recovery: Recovery
    guide: Guide
    step: Step
    board: BoardProfile
    is_back: bool  # the camera has reported since the present step began


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """A camera, what is known of it, what that may mean, and the guide for the most likely cause."""

    facts: CameraFacts
    board: BoardProfile
    guide: Guide


class RecoveryService:
    """See the module."""

    def __init__(
        self, store: Store, clock: Clock = time.time, *, presence: PresenceRules | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._presence = presence or PresenceRules()

    def diagnose(self, name: str, *, usb: str = "unknown", guide: str | None = None) -> Diagnosed:
        """What may be wrong with a camera, with what USB shows if somebody has looked."""
        _check_usb(usb)
        with self._store.reading() as work:
            facts = self._facts(work, self._camera(work, name), usb)
        board = board_of(facts.camera)
        return Diagnosed(facts, board, guide_for(board, guide or facts.findings[0].cause.guide))

    def timeline(self, name: str, *, since: float | None = None, limit: int = 100) -> list[Moment]:
        """One camera's story, newest first; the last week unless said otherwise."""
        now = self._clock()
        with self._store.reading() as work:
            return timeline(
                work,
                self._camera(work, name),
                since=now - 7 * 86400 if since is None else since,
                now=now,
                late_s=self._presence.late_after,
                limit=limit,
            )

    def start(
        self, name: str, *, usb: str = "unknown", guide: str | None = None, restart: bool = False, actor: str
    ) -> Way:
        """Begins a recovery, or goes on with the one that is open. `guide` skips the diagnosis."""
        _check_usb(usb)
        with self._store.transaction() as work:
            camera, now = self._camera(work, name), self._clock()
            opened = work.recoveries.opened(camera.id)
            if opened is not None and not restart and guide is None:
                return self._way(work, opened)
            if opened is not None:
                self._finish(work, opened, "abandoned", opened.log, now)
            facts = self._facts(work, camera, usb)
            board, best = board_of(camera), facts.findings[0]
            family = guide or best.cause.guide
            step = guide_for(board, family).first.id
            is_clear = bool(facts.clues.lights) or usb in USB_TELLS or _is_online(facts)
            if guide is None and not is_clear:
                step = LED_STEP
            incident = self._incident(work, camera.id)
            values = {
                "incident_id": incident,
                "board": board.key,
                "cause": best.cause.key,
                "guide": family,
                "step": step,
                "causes": causes_of(facts.findings),
                "log": [],
            }
            recovery = work.recoveries.add(camera.id, values, actor, now)
            work.access.record(actor, "recovery.start", name, {"recovery": recovery.id}, now)
            if incident is not None:
                text = f"recovery {recovery.id} begun: {best.cause.title}"
                work.incidents.add_note(incident, actor, text, now)
            log.info("recovery_started", camera=name, recovery=recovery.id, cause=best.cause.key)
            return self._way(work, recovery)

    def recoveries(self, camera: str | None = None, *, limit: int = 100) -> list[Recovery]:
        """Recoveries, newest first."""
        with self._store.reading() as work:
            if camera is not None:
                self._camera(work, camera)
            return work.recoveries.all(camera=camera, limit=limit)

    def recovery(self, recovery_id: int) -> Way:
        """One; UnknownRecoveryError."""
        with self._store.reading() as work:
            return self._way(work, self._get(work, recovery_id))

    def report(
        self,
        recovery_id: int,
        step: str,
        outcome: str,
        *,
        detail: str = "",
        usb: str = "unknown",
        actor: str,
    ) -> Way:
        """What became of the present step: `ok`, `failed`, or the answer to its question.

        At LED_STEP the answer is what the light does ("white blink-fast"), or "skip". ConflictError when the recovery
        is at another step by now, or when a camera is said to be back that has not reported.
        """
        _check_usb(usb)
        with self._store.transaction() as work:
            recovery, now = self._get(work, recovery_id), self._clock()
            if recovery.state != "open":
                raise ConflictError(f"Recovery {recovery_id} is over ({recovery.state}). Begin a new one.")
            if recovery.step != step:
                raise ConflictError(
                    f"Recovery {recovery_id} is at the step {recovery.step}, not {step}. Nothing was changed.",
                    step=recovery.step,
                )
            entry = {"at": now, "step": step, "outcome": outcome, "detail": detail[:500], "by": actor}
            entries = (*recovery.log, entry)
            values: dict[str, Any]
            if step == LED_STEP:
                values = self._light(work, recovery, outcome, usb, now)
            else:
                values = {"step": self._next(work, recovery, outcome)}
            return self._advance(work, recovery, values, entries, now)

    def abandon(self, recovery_id: int, *, actor: str) -> None:
        """Ends a recovery without an outcome, if it is not over."""
        with self._store.transaction() as work:
            recovery, now = self._get(work, recovery_id), self._clock()
            if recovery.state != "open":
                return
            self._finish(work, recovery, "abandoned", recovery.log, now)
            work.access.record(actor, "recovery.abandon", recovery.camera, {"recovery": recovery_id}, now)

    # --- one step -----------------------------------------------------------------------------------------

    def _light(
        self, work: UnitOfWork, recovery: Recovery, outcome: str, usb: str, now: float
    ) -> dict[str, Any]:
        """Notes what was seen, and chooses the guide anew."""
        if outcome != SKIP:
            color, _, pattern = outcome.partition(" ")
            pattern = pattern or ("off" if color == "off" else "solid")
            if color not in COLORS or pattern not in PATTERNS:
                raise InvalidError(
                    f'{outcome!r} is no light. Write a colour and a pattern, such as "white blink-fast", or skip. '
                    f"Colours: {', '.join(COLORS)}. Patterns: {', '.join(PATTERNS)}."
                )
            reason = f"recovery {recovery.id}"
            work.history.add_sighting(recovery.camera_id, now, color, pattern, "operator", reason)
            work.cameras.set_led(recovery.camera_id, color, pattern, reason, now)
        facts = self._facts(work, self._camera(work, recovery.camera), usb)
        best = facts.findings[0]
        return {
            "cause": best.cause.key,
            "guide": best.cause.guide,
            "causes": causes_of(facts.findings),
            "step": guide_for(_board(recovery.board), best.cause.guide).first.id,
        }

    def _next(self, work: UnitOfWork, recovery: Recovery, outcome: str) -> str:
        way = self._way(work, recovery)
        if way.step.kind == "back" and outcome == "ok" and not way.is_back:
            raise ConflictError(
                f"{recovery.camera} has not reported since this step began. Nothing was changed; wait for its own "
                "word, or report the step as failed."
            )
        target = way.step.following(outcome)
        if target is None:
            possible = [one[0] for one in way.step.choices] or ["ok", "failed"]
            raise InvalidError(
                f"{outcome!r} is no outcome of the step {way.step.id}. Possible: {', '.join(possible)}.",
                step=way.step.id,
            )
        return target

    def _advance(
        self,
        work: UnitOfWork,
        recovery: Recovery,
        values: Mapping[str, Any],
        entries: tuple[Mapping[str, Any], ...],
        now: float,
    ) -> Way:
        guide = guide_for(_board(recovery.board), str(values.get("guide", recovery.guide)))
        step = guide.step(str(values["step"]))
        kind = "" if step is None else step.kind
        if kind == "done":
            self._finish(work, recovery, "recovered", entries, now, values)
        elif kind == "stop" or len(entries) >= LOG_ENTRIES:
            self._finish(work, recovery, "stopped", entries, now, values)
        elif not work.recoveries.advance(recovery, values, entries, now):
            raise ConflictError(
                f"Somebody else has moved recovery {recovery.id} on. Nothing was changed; look again."
            )
        return self._way(work, self._get(work, recovery.id))

    def _finish(
        self,
        work: UnitOfWork,
        recovery: Recovery,
        state: str,
        entries: tuple[Mapping[str, Any], ...],
        now: float,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        ended = {**(values or {}), "state": state, "open_key": None, "finished_at": now}
        if not work.recoveries.advance(recovery, ended, entries, now):
            raise ConflictError(f"Somebody else has moved recovery {recovery.id} on. Nothing was changed.")
        log.info("recovery_ended", camera=recovery.camera, recovery=recovery.id, state=state)
        # The watch may have been quicker: the camera reports before anybody here notices.
        incident = self._incident(work, recovery.camera_id) or recovery.incident_id
        if incident is None:
            return
        work.incidents.add_note(incident, recovery.created_by, f"recovery {recovery.id}: {state}", now)
        if state == "recovered":  # the watch closes it, once the camera has gone on reporting for a while
            outcome = f"recovered after {recovery.cause} (recovery {recovery.id})"
            work.incidents.change(incident, outcome=outcome)

    # --- looking ------------------------------------------------------------------------------------------

    def _way(self, work: UnitOfWork, recovery: Recovery) -> Way:
        board = _board(recovery.board)
        guide = guide_for(board, recovery.guide)
        step = _led_step(board) if recovery.step == LED_STEP else guide.step(recovery.step)
        (facts,) = gather(work, [self._camera(work, recovery.camera)], self._clock(), self._presence)
        back = is_back(facts.camera.seen_at, recovery.changed_at, online=_is_online(facts))
        return Way(recovery, guide, step or guide.first, board, back)

    def _facts(self, work: UnitOfWork, camera: Camera, usb: str) -> CameraFacts:
        (facts,) = gather(work, [camera], self._clock(), self._presence, looked=Looked(usb))
        return facts

    def _camera(self, work: UnitOfWork, name: str) -> Camera:
        camera = work.cameras.get(name)
        if camera is None:
            raise UnknownCameraError(camera=name)
        return camera

    def _get(self, work: UnitOfWork, recovery_id: int) -> Recovery:
        found = work.recoveries.get(recovery_id)
        if found is None:
            raise UnknownRecoveryError(recovery=recovery_id)
        return found

    def _incident(self, work: UnitOfWork, camera_id: int) -> int | None:
        """The open incident about whether the camera can be reached, else any open one of its."""
        own = [one for one in work.incidents.opened() if one.camera_id == camera_id]
        own.sort(key=lambda one: one.lane is not Lane.REACH)
        return own[0].id if own else None


def _led_step(board: BoardProfile) -> Step:
    """The one question that comes before every guide: people see what fleetd cannot."""
    choices = [
        (f"{color} {pattern}", f"{color} {pattern}: {text}", LED_STEP)
        for color, pattern, text in usual_looks(board)
    ]
    return Step(
        id=LED_STEP,
        kind="ask",
        title="What does the LED do?",
        say=(
            "Look at it before you touch anything: a power cycle wipes the best witness out.",
            *(
                ("A small steady green light is the power LED; tell about the other one.",)
                if board.has_power_led
                else ()
            ),
        ),
        choices=(*choices, (SKIP, "nobody can look at it now", LED_STEP)),
    )


def _board(key: str) -> BoardProfile:
    return next((one for one in profiles() if one.key == key), find(""))


def _is_online(facts: CameraFacts) -> bool:
    return facts.clues.presence is Presence.ONLINE


def _check_usb(usb: str) -> None:
    if usb not in USB_STATES:
        raise InvalidError(f"{usb!r} is no USB state. Known: {', '.join(USB_STATES)}.")
