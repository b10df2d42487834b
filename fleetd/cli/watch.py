"""Watching a rollout until it ends: bars on a terminal, lines everywhere else."""

import contextlib
import sys
from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import typer

from fleetd.cli.errors import NOT_SUCCEEDED, CliError, UnreachableError
from fleetd.cli.explaining import rate_line, states_line
from fleetd.cli.reasons import advice
from fleetd.cli.session import Session
from fleetd.cli.text import counted, safe

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

POLL_SECONDS: Final = 1.0
EXPLAINED_EVERY: Final = 3  # looks
ATTEMPTS: Final = 60  # to reach fleetd, one a second
CAMERAS_PER_SECOND: Final = 500.0  # large rollouts are asked for less often
ENDED: Final = frozenset({"completed", "halted", "cancelled"})
OPEN: Final = frozenset({"pending", "offered", "transferring", "verifying", "trial"})
BUSY: Final = frozenset({"transferring", "verifying", "trial"})
GOOD: Final = frozenset({"confirmed", "superseded"})
BARS: Final = 12  # cameras shown at once
INTERRUPTED: Final = 130

Rollout = Mapping[str, Any]  # as GET /rollouts/{id} answers it


class Display(Protocol):
    """How progress is shown."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def update(self, view: Rollout) -> None:
        """Shows what is new."""

    def explain(self, found: Rollout) -> None:
        """Shows waves, rates and what happens next."""


def watch(session: Session, rollout_id: int, *, quiet: bool = False) -> Rollout:
    """Waits until the rollout has ended and answers it. `quiet` shows nothing meanwhile."""
    display: Display = _Quiet() if quiet else _Bars() if sys.stdout.isatty() else _Lines(session)
    try:
        with display:
            for turn in count():
                view = _look(session, rollout_id)
                display.update(view)
                if view["rollout"]["state"] in ENDED:
                    return view
                if turn % EXPLAINED_EVERY == 0 and not quiet:
                    _explain(session, rollout_id, display)
                session.sleep(max(POLL_SECONDS, len(view["assignments"]) / CAMERAS_PER_SECOND))
    except KeyboardInterrupt:
        session.out.warn(
            f"Not watching any more; the rollout goes on. `fleetctl rollouts watch {rollout_id}` looks again."
        )
        raise typer.Exit(INTERRUPTED) from None
    raise AssertionError("counting never ends")


def _explain(session: Session, rollout_id: int, display: Display) -> None:
    """Shows why it is where it is. An older fleetd that cannot say it is no trouble."""
    with contextlib.suppress(CliError):
        display.explain(session.api.get("rollouts", rollout_id, "explain"))


def _look(session: Session, rollout_id: int) -> Rollout:
    """The rollout as it is now. A fleetd that is just being restarted is waited for."""
    failed = 0
    while True:
        try:
            found: Rollout = session.api.get("rollouts", rollout_id)
        except CliError as error:
            failed += 1
            away = isinstance(error, UnreachableError) or error.code.endswith("unavailable")
            if not away or failed == ATTEMPTS:
                raise
            if failed == 1:
                session.out.warn(
                    "fleetd does not answer. Waiting for it; the rollout goes on when it is back."
                )
            session.sleep(POLL_SECONDS)
        else:
            return found


def conclude(session: Session, view: Rollout) -> None:
    """Says how it ended; CliError with exit code 3 unless every camera runs the release."""
    rollout, assignments = view["rollout"], view["assignments"]
    bad = [one for one in assignments if one["state"] not in GOOD]
    for one in bad:
        if one["state"] not in OPEN and one["state"] != "cancelled":
            session.out.warn(f"  {safe(one['camera'])}: {explain(one)}")
    confirmed = sum(one["state"] == "confirmed" for one in assignments)
    result = f"{confirmed} of {counted(len(assignments), 'camera')} confirmed {safe(rollout['release_id'])}"
    if rollout["state"] == "completed" and not bad:
        session.out.warn(f"Rollout {rollout['id']} is completed: {result}.")
        return
    why = f" {safe(rollout['reason'])}" if rollout["reason"] else ""
    raise CliError(
        f"Rollout {rollout['id']} is {safe(rollout['state'])}: {result}.{why}",
        f"`fleetctl rollouts show {rollout['id']}` has every camera; all others keep their old model.",
        exit_code=NOT_SUCCEEDED,
    )


def explain(assignment: Mapping[str, Any]) -> str:
    """One camera's outcome with its reason in words."""
    state, reason, detail = assignment["state"], assignment["reason"], assignment["detail"]
    text = f"{safe(state)}, {safe(reason)}" if reason else safe(state)
    found = advice(reason)
    said = [found.meaning, found.todo] if found is not None else []
    if detail:
        said.insert(1, f"({safe(detail)})")
    return f"{text}: {' '.join(said)}" if said else text


def tally_line(view: Rollout) -> str:
    """How many cameras are in which state, e.g. `3 confirmed, 1 trial, 6 pending`."""
    tally = {state: count for state, count in view["tally"].items() if count}
    order = sorted(tally, key=lambda state: (state != "confirmed", state in OPEN, state))
    return ", ".join(f"{tally[state]} {safe(state)}" for state in order) or "no cameras"


class _Quiet:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, view: Rollout) -> None:
        """Shows nothing."""

    def explain(self, found: Rollout) -> None:
        """Shows nothing."""


class _Lines(_Quiet):
    """One line per change: for logs and pipes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._states: dict[str, str] = {}
        self._rollout = ""
        self._next = ""

    def update(self, view: Rollout) -> None:
        """Prints what has changed since the last time."""
        changed = False
        for one in view["assignments"]:
            state = one["state"]
            if self._states.get(one["camera"]) != state and state != "pending":
                reason = f" ({safe(one['reason'])})" if one["reason"] else ""
                self._session.out.say(f"{safe(one['camera'])}  {safe(state)}{reason}")
                changed = True
            self._states[one["camera"]] = state
        state = view["rollout"]["state"]
        if changed or state != self._rollout:
            self._session.out.say(f"rollout {view['rollout']['id']} {safe(state)}: {tally_line(view)}")
        self._rollout = state

    def explain(self, found: Rollout) -> None:
        """Prints what happens next when that is something else than before, and signals that move."""
        coming = f"{found['why']} {found['next']}"
        if coming != self._next and found["soaking_s"]:
            self._session.out.say(f"rollout {found['rollout']['id']}: {safe(coming)}")
        self._next = coming
        for one in found["signals"]:
            if one["moved"]:
                self._session.out.say(f"  moved: {safe(one['signal'])}: {safe(one['text'])}")


class _Bars:
    """A bar for all, one for each wave, and one for each camera that is at it."""

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._progress = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, view: Rollout) -> None:
        """Moves the bars."""
        rollout, assignments = view["rollout"], view["assignments"]
        done = sum(one["state"] not in OPEN for one in assignments)
        note = f"{safe(rollout['state'])}: {tally_line(view)}"
        self._bar("", f"rollout {rollout['id']}", note, done, len(assignments))
        busy = [one for one in assignments if one["state"] in BUSY][:BARS]
        for one in busy:
            self._bar(
                one["camera"],
                f"  {safe(one['camera'])}",
                safe(one["state"]),
                one["blocks_done"] or 0,
                one["blocks_total"] or None,
            )
        for key in set(self._tasks) - {one["camera"] for one in busy}:
            if key and not key.startswith("_"):
                self._progress.remove_task(self._tasks.pop(key))

    def explain(self, found: Rollout) -> None:
        """Moves the waves' bars; says what is next, how fast it goes and which signals move."""
        for place, wave in enumerate(found["waves"]):
            done = sum(number for state, number in wave["tally"].items() if state not in OPEN)
            note = f"{safe(wave['state'])}: {states_line(wave['tally'])}"
            self._bar(f"_wave {place}", f"  wave {safe(wave['name'])}", note, done, wave["cameras"] or None)
        moving = [one for one in found["signals"] if one["moved"]] or found["signals"][:1]
        signals = "; ".join(f"{safe(one['signal'])} {safe(one['text'])}" for one in moving) or "-"
        self._bar("_next", "  next", safe(found["next"]), 0, 1)
        self._bar("_rate", "  rate", rate_line(found) or "-", 0, 1)
        self._bar("_signals", "  signals", signals, 0, 1)

    def _bar(self, key: str, name: str, note: str, done: int, total: int | None) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task("", total=total, name=name, note=note)
        self._progress.update(self._tasks[key], completed=done, total=total, note=note)
