"""Turning facts into text that is safe to print: names and labels may come from anyone's camera."""

import json
import re
import time
import unicodedata
from typing import Any, Final

from fleetd.cli.errors import UNUSABLE, CliError

# Controls, format characters (bidi overrides among them), surrogates, private use, unassigned, line breaks.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def safe(value: object) -> str:
    r"""The text on one line without anything a terminal would act on: `\x1b[2J` is shown as written here."""
    return "".join(_escaped(char) if unicodedata.category(char) in _UNSAFE else char for char in str(value))


def _escaped(char: str) -> str:
    code = ord(char)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def as_json(data: Any) -> str:
    """Readable JSON; ASCII only, so nothing in it can move a cursor."""
    return json.dumps(data, indent=2, ensure_ascii=True)


def as_json_line(data: Any) -> str:
    """The same on one line."""
    return json.dumps(data, ensure_ascii=True)


def duration(seconds: float | None) -> str:
    """A span in the two units that matter: `45s`, `12m`, `3h 20m`, `2d 4h`."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def when(at: float | None) -> str:
    """Unix seconds as local date and time."""
    if at is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, OSError, ValueError):
        return f"{at:.0f}"  # outside of what this machine's calendar knows


def size(count: float | None) -> str:
    """Bytes as people say them: `41.2 KB`."""
    if count is None:
        return "-"
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"


def counted(count: int, noun: str) -> str:
    """`1 camera`, `3 cameras`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number(value: float | None, digits: int = 1) -> str:
    """A measurement, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def span(text: str) -> float:
    """A span of time an operator wrote, in seconds: `90s`, `15m`, `2h`, `7d`."""
    if found := _SPAN.fullmatch(text.strip().lower()):
        return float(found[1]) * _UNITS[found[2]]
    raise CliError(f"{safe(text)!r} is no time.", "Write 90s, 15m, 2h or 7d.", exit_code=UNUSABLE)


def moment(text: str | None, now: float) -> float | None:
    """A point in time an operator wrote: `15m` (ago), `2h`, `7d`, or Unix seconds."""
    if text is None:
        return None
    if found := _SPAN.fullmatch(text.strip().lower()):
        return max(0.0, now - float(found[1]) * _UNITS[found[2]])
    try:
        at = float(text)
    except ValueError:
        at = -1.0
    if not 0 <= at <= 2**40:
        raise CliError(
            f"{safe(text)!r} is no time.",
            "Write how long ago (90s, 15m, 2h, 7d) or Unix seconds.",
            exit_code=UNUSABLE,
        )
    return at
