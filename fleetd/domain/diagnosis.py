"""What may be wrong with a camera: clues in, causes out, most likely first, each with the evidence for it.

A pure table. Every row looks at the clues and, where it applies, speaks for a cause with a weight and a sentence.
The weights follow how much a source can be trusted: USB (100 and more), an operator's eye (60), the camera's own
last words (20 to 40), what follows from silence (10 to 20). There is always an answer, if need be "unknown".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from fleetd.domain.diagnosis_causes import CAUSES, Cause
from fleetd.domain.presence import Presence


@dataclass(frozen=True, slots=True)
class Clues:
    """Everything that is known about a camera, from whoever told it. Durations are seconds."""

    board: str = "generic"
    has_power_led: bool = False
    freezes_on_fault: bool = False
    has_watchdog: bool = True
    is_nxp: bool = False  # its bootloader is there for a second only
    presence: Presence = Presence.OFFLINE
    silent_s: float | None = None
    usb: str = "unknown"  # unknown, absent, running, bootloader, interrupted, rom
    lights: tuple[
        str, ...
    ] = ()  # what the last sighting by somebody else than the agent can mean, best first
    light_seen: str = ""  # that sighting in words
    last_state: str | None = None  # the agent's own last word about its LED
    reset_cause: str | None = None
    boots: int = 0  # within the last quarter of an hour
    watchdog_boots: int = 0
    brown_outs: int = 0
    update: str | None = None  # offered, transferring, verifying, trial: under way; lost: went silent over it
    update_of: str = ""  # the release
    problems: tuple[str, ...] = ()
    frozen_s: float = 0.0  # the same picture for so long
    is_twin: bool = False  # two devices use the camera's name
    outages: int = 0  # lost connections within the last hour


class Finding(NamedTuple):
    """A cause, how much speaks for it, and what."""

    cause: Cause
    weight: int
    evidence: tuple[str, ...]


class _Row(NamedTuple):
    cause: str
    weight: int
    when: Callable[[Clues], bool]
    because: str  # may name fields of Clues in braces


def _first(word: str) -> Callable[[Clues], bool]:
    return lambda c: c.lights[:1] == (word,)


def _also(word: str) -> Callable[[Clues], bool]:
    return lambda c: word in c.lights[1:]


def _gone(c: Clues) -> bool:
    return c.presence in (Presence.OFFLINE, Presence.LATE)


def _there(c: Clues) -> bool:
    return c.presence is Presence.ONLINE


def _on_usb(*states: str) -> Callable[[Clues], bool]:
    return lambda c: c.usb in states


ENOUGH: Final = 20  # less than that is a guess: the answer is "unknown", and the guesses follow
_LIT: Final = frozenset({"main-running", "starting", "trial", "updating", "no-model", "model-failed"})
_BY_LIGHT: Final = (  # what somebody saw -> cause
    ("bootloader", "stuck-in-bootloader", "the light was seen as {light_seen}: that is the bootloader"),
    ("default-main", "storage-reset", "blue double-blinking was seen: OpenMV's own main.py, on a formatted storage"),
    ("panic", "firmware-panic", "the light was seen as {light_seen}: that is a firmware panic"),
    ("flash-writing", "busy", "steady red was seen: flash is being written, do not cut the power now"),
    ("no-network", "no-network", "the agent shows that it has no network ({light_seen})"),
    ("no-broker", "no-broker", "the agent shows that it does not reach the broker ({light_seen})"),
    ("no-connection", "no-network", "yellow was seen: the agent has no network, or no broker"),
    ("config", "no-settings", "the agent shows that it has no usable config.json ({light_seen})"),
    ("no-camera", "no-sensor", "the agent shows that the image sensor fails ({light_seen})"),
    ("crashed", "agent-crash", "the agent shows that it failed ({light_seen})"),
    ("safe-mode", "agent-crash", "the agent is in safe mode: it failed at one start after the other ({light_seen})"),
    ("agent-trouble", "agent-crash", "red was seen: the agent is in trouble"),
    ("starting", "busy", "the agent shows that it is starting; minutes at the very first start"),
    ("updating", "busy", "the agent shows an update ({light_seen})"),
    ("trial", "busy", "the agent shows a new model on trial ({light_seen})"),
    ("agent-working", "busy", "magenta was seen: the agent is at work on a model"),
    ("identify", "busy", "white double-blinking was seen: somebody asked the camera to show itself"),
    ("no-model", "no-model", "the agent shows that it has no model ({light_seen})"),
    ("model-failed", "no-model", "the agent shows that its model cannot be loaded ({light_seen})"),
)  # fmt: skip

ROWS: Final[tuple[_Row, ...]] = (
    # what USB shows beats everything
    _Row("flash-interrupted", 130, _on_usb("interrupted"),
         "USB shows a bootloader that stays: writing the flash was cut off"),
    _Row("bootloader-lost", 130, _on_usb("rom"),
         "USB shows the processor's own ROM: there is no bootloader to start, or the bridge is still in"),
    _Row("stuck-in-bootloader", 120, _on_usb("bootloader"), "USB shows the bootloader"),
    _Row("storage-reset", 60, lambda c: c.usb == "running" and "default-main" in c.lights,
         "USB shows running firmware"),
    _Row("agent-silent", 70, lambda c: c.usb == "running" and _gone(c) and "default-main" not in c.lights,
         "USB shows running firmware, but the agent says nothing"),
    _Row("agent-silent", 30, lambda c: c.usb == "running" and c.presence is Presence.NEW,
         "USB shows running firmware, but the agent was never heard"),
    _Row("no-power", 50, lambda c: c.usb == "absent" and not _there(c) and "dark" in c.lights,
         "nothing is lit and USB shows nothing"),
    _Row("no-power", 25, lambda c: c.usb == "absent" and not _there(c) and "dark" not in c.lights,
         "USB shows nothing: no power, or no data lines in the cable"),
    # a board that freezes when its firmware faults
    _Row("firmware-fault", 80, lambda c: c.freezes_on_fault and c.usb == "absent" and "dark" in c.lights,
         "dark and gone from USB: a firmware fault freezes this board like that"),
    _Row("firmware-fault", 70, lambda c: c.freezes_on_fault and c.usb == "absent" and bool(_LIT & set(c.lights)),
         "the LED is lit as if all were well, but USB is gone: a fault leaves the LED as it was"),
    _Row("firmware-fault", 60, lambda c: c.freezes_on_fault and "dark" in c.lights and not _there(c)
         and c.usb == "unknown", "the LED is dark: a firmware fault freezes this board"),
    _Row("no-power", 40, lambda c: "dark" in c.lights and not _there(c) and c.usb == "unknown",
         "nothing is lit"),
    _Row("firmware-fault", 30, lambda c: c.freezes_on_fault and _first("power")(c) and not _there(c),
         "only the power LED was seen: the board has power, and nothing runs"),
    _Row("agent-silent", 20, lambda c: _first("power")(c) and not _there(c) and not c.freezes_on_fault,
         "only the power LED was seen: it says nothing about the firmware"),
    _Row("agent-hangs", 45, lambda c: _first("main-running")(c) and _gone(c) and c.usb != "absent",
         "blue was seen, so main.py has started, but nothing is heard"),
    _Row("no-network", 15, lambda c: _first("main-running")(c) and _gone(c),
         "main.py runs: perhaps it has no network"),
    *(_Row(cause, 60, _first(word), because) for word, cause, because in _BY_LIGHT),
    *(_Row(cause, 20, _also(word), because) for word, cause, because in _BY_LIGHT
      if word not in {"starting", "bootloader"}),
    _Row("stuck-in-bootloader", 10, lambda c: _also("bootloader")(c) and not c.has_power_led,
         "green was seen: that is the bootloader's colour"),
    # what the camera said before
    _Row("storage-reset", 35, lambda c: "storage-reset" in c.problems, "the camera reports storage-reset"),
    _Row("no-sensor", 40, lambda c: "no-camera" in c.problems, "the camera reports no-camera"),
    _Row("no-model", 30, lambda c: _there(c) and any(p.startswith(("no-model", "model-failed"))
         for p in c.problems), "the camera reports a problem with its model"),
    _Row("agent-crash", 45, lambda c: "safe-mode" in c.problems,
         "the camera reports safe-mode: it failed at one start after the other"),
    _Row("storage-bad", 40, lambda c: bool({"storage-error", "slot-damaged", "trial-lost"} & set(c.problems)),
         "the camera reports trouble with its storage"),
    _Row("lost-over-update", 35, lambda c: c.update == "lost" and not _there(c),
         "it went silent over the update to {update_of}"),
    _Row("lost-over-update", 30, lambda c: c.update in ("trial", "verifying") and _gone(c),
         "it is silent in the middle of the update to {update_of}"),
    _Row("firmware-fault", 15, lambda c: c.freezes_on_fault and c.update in ("lost", "trial") and _gone(c),
         "a model that the firmware cannot digest freezes this board"),
    _Row("boot-loop", 50, lambda c: c.boots >= 4, "it has started {boots} times within a quarter of an hour"),
    _Row("agent-crash", 25, lambda c: c.watchdog_boots >= 2, "its watchdog restarted it {watchdog_boots} times"),
    _Row("power-weak", 60, lambda c: c.brown_outs >= 1, "it restarted because its supply voltage dropped"),
    _Row("power-weak", 15, lambda c: c.boots >= 4 and c.reset_cause == "power-on",
         "it restarts as if somebody pulled the plug"),
    _Row("frozen-picture", 70, lambda c: _there(c) and c.frozen_s > 0, "it sends the very same picture"),
    _Row("two-cameras-one-name", 90, lambda c: c.is_twin, "two devices use its name in turns"),
    _Row("no-network", 40, lambda c: c.outages >= 5, "it lost its connection {outages} times within an hour"),
    _Row("no-network", 20, lambda c: _gone(c) and c.last_state in ("no-network", "no-broker"),
         "the last it said was about its connection ({last_state})"),
    _Row("agent-crash", 25, lambda c: _gone(c) and c.last_state == "crashed", "the last it said was: crashed"),
    _Row("agent-hangs", 15, lambda c: _gone(c) and not c.has_watchdog,
         "this board has no watchdog: a hang lasts until somebody cuts the power"),
    _Row("agent-hangs", 5, lambda c: _gone(c) and c.has_watchdog, "it is silent"),
    _Row("no-power", 10, lambda c: _gone(c) and c.usb == "unknown", "it is silent, and nobody has looked at it"),
    _Row("no-network", 8, lambda c: _gone(c) and c.usb in ("unknown", "running"),
         "it is silent: its network may be gone"),
    _Row("never-provisioned", 20, lambda c: c.presence is Presence.NEW, "it was never heard of"),
    _Row("healthy", 50, lambda c: _there(c) and c.usb in ("unknown", "running"), "it is online"),
    _Row("healthy", 10, lambda c: _there(c) and c.usb not in ("unknown", "running"), "it is online"),
)  # fmt: skip


def diagnose(clues: Clues) -> tuple[Finding, ...]:
    """Every cause that something speaks for, heaviest first; never empty, never an exception."""
    weights: dict[str, int] = {}
    evidence: dict[str, list[str]] = {}
    for row in ROWS:
        if row.when(clues):
            weights[row.cause] = weights.get(row.cause, 0) + row.weight
            evidence.setdefault(row.cause, []).append(_filled(row.because, clues))
    if len(weights) > 1:
        weights = {cause: weight for cause, weight in weights.items() if cause != "healthy" or weight >= 50}
    if "healthy" in weights and any(w >= 40 for cause, w in weights.items() if cause != "healthy"):
        del weights["healthy"]
    order = sorted(weights, key=lambda cause: (-weights[cause], cause))
    found = tuple(Finding(CAUSES[cause], weights[cause], tuple(evidence[cause])) for cause in order)
    if not found or found[0].weight < ENOUGH:
        return (Finding(CAUSES["unknown"], 0, ("nothing that is known says more than its silence",)), *found)
    return found


def _filled(text: str, clues: Clues) -> str:
    if "{" not in text:
        return text
    facts = {name: getattr(clues, name) for name in Clues.__dataclass_fields__}
    return text.format(**{**facts, "update_of": clues.update_of or "a release"})
