"""Which cameras a query names.

    all                              every camera
    id=cam-1                         that camera; * and ? stand for any characters: id=cam-*
    tag=line-3                       cameras that carry the tag; "quotes" around a value with spaces: tag="line 3"
    board=OMVRT1060                  boards whose `omv.arch()` begins so
    firmware=4.8                     4.8 and 4.8.1, but not 4.80
    release=model-3                  cameras that report running that release
    presence=online                  new, online, late, offline, asleep or frozen
    site=berlin                      cameras at that site
    percent=10                       a tenth of them, always the same; a larger share only adds cameras
    tag=line-3, firmware=4.8         both (the comma and the word `and` are the same)
    tag=line-3 or tag=line-4         either; `and` binds more tightly than `or`
    tag=line-3 and not (id=cam-7 or presence=offline)

A query is read once into a frozen tree; `str()` of a tree is a query that reads as the same tree.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fleetd.domain.records import Camera
from fleetd.errors import InvalidError

MAX_CHARS: Final = 4096
MAX_DEPTH: Final = 32  # parentheses and `not` inside each other
KEYS: Final = ("id", "tag", "board", "firmware", "release", "presence", "site", "percent")
PRESENCES: Final = ("new", "online", "late", "offline", "asleep", "frozen")

_PERCENT: Final = re.compile(r"[1-9][0-9]?|100")
_PLAIN: Final = re.compile(r'[^\s,()="\\]+')
_TOKEN: Final = re.compile(r'\s*(?:([,()=])|("(?:[^"\\]|\\.)*")|([^\s,()="\\]+)|(\S))', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Everything:
    """Every camera."""

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True, slots=True)
class Term:
    """Cameras for which `key` is (or begins with, or fits) `value`."""

    key: str
    value: str

    def __str__(self) -> str:
        if _PLAIN.fullmatch(self.value):
            return f"{self.key}={self.value}"
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.key}="{escaped}"'


@dataclass(frozen=True, slots=True)
class Not:
    """Cameras that `part` does not name."""

    part: "Target"

    def __str__(self) -> str:
        return f"not {_inside(self.part)}"


@dataclass(frozen=True, slots=True)
class And:
    """Cameras that all parts name."""

    parts: tuple["Target", ...]

    def __str__(self) -> str:
        return " and ".join(_inside(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """Cameras that at least one part names."""

    parts: tuple["Target", ...]

    def __str__(self) -> str:
        return " or ".join(f"({part})" if isinstance(part, Or) else str(part) for part in self.parts)


Target = Everything | Term | Not | And | Or


def parse_target(text: str) -> Target:
    """The tree of a query, or an InvalidError that says where it stops making sense and what could stand there."""
    if len(text) > MAX_CHARS:
        raise InvalidError(
            f"The target is {len(text)} characters long; {MAX_CHARS} is the limit. Nothing was changed; "
            "give the cameras a tag in common and name that."
        )
    return _Parser(text).query()


def matches(target: Target, camera: Camera, presence: str) -> bool:
    """Whether the query names this camera, whose presence right now is `presence`."""
    match target:
        case Everything():
            return True
        case Term(key, value):
            return _TESTS[key](value, camera, presence)
        case Not(part):
            return not matches(part, camera, presence)
        case And(parts):
            return all(matches(part, camera, presence) for part in parts)
        case Or(parts):
            return any(matches(part, camera, presence) for part in parts)


def _inside(part: Target) -> str:
    return f"({part})" if isinstance(part, And | Or) else str(part)


def _is_id(value: str, camera: Camera, _presence: str) -> bool:
    """Compares with wildcards, in time proportional to the name's length times the pattern's."""
    name, star, mark = camera.name, -1, 0
    at = of = 0
    while at < len(name):
        if of < len(value) and value[of] == "*":
            star, mark, of = of, at, of + 1
        elif of < len(value) and value[of] in ("?", name[at]):
            at, of = at + 1, of + 1
        elif star >= 0:
            mark, of = mark + 1, star + 1
            at = mark
        else:
            return False
    return not value[of:].strip("*")


def _has_tag(value: str, camera: Camera, _presence: str) -> bool:
    return value in camera.tags


def _is_board(value: str, camera: Camera, _presence: str) -> bool:
    return camera.board is not None and camera.board.startswith(value)


def _has_firmware(value: str, camera: Camera, _presence: str) -> bool:
    """A prefix that does not cut a number in two."""
    if camera.firmware is None or not camera.firmware.startswith(value):
        return False
    rest = camera.firmware[len(value) :]
    return not (rest[:1].isdigit() and value[-1:].isdigit())


def _runs(value: str, camera: Camera, _presence: str) -> bool:
    return camera.release_id == value


def _is_present(value: str, _camera: Camera, presence: str) -> bool:
    return presence == value


def _is_at(value: str, camera: Camera, _presence: str) -> bool:
    return camera.site == value


def _is_among(value: str, camera: Camera, _presence: str) -> bool:
    place = int.from_bytes(hashlib.sha256(f"percent:{camera.name}".encode()).digest()[:8], "big")
    return place < int(value) * 2**64 // 100


_TESTS: Final[dict[str, Callable[[str, Camera, str], bool]]] = {
    "id": _is_id,
    "tag": _has_tag,
    "board": _is_board,
    "firmware": _has_firmware,
    "release": _runs,
    "presence": _is_present,
    "site": _is_at,
    "percent": _is_among,
}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "mark", "quoted", "word", "end" or "odd"
    text: str
    at: int  # index of its first character


class _Parser:
    """Recursive descent, one method per rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def query(self) -> Target:
        """The whole text is one query."""
        tree = self._either()
        if self._token.kind != "end":
            raise self._unexpected("`and`, `or`, a comma or the end")
        return tree

    def _either(self) -> Target:
        parts = [self._both()]
        while self._take_word("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _both(self) -> Target:
        parts = [self._one()]
        while self._take_mark(",") or self._take_word("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self) -> Target:
        if self._take_word("not"):
            self._deeper()
            part: Target = Not(self._one())
            self._depth -= 1
            return part
        if self._take_mark("("):
            self._deeper()
            part = self._either()
            if not self._take_mark(")"):
                raise self._unexpected("`)`")
            self._depth -= 1
            return part
        if self._take_word("all"):
            return Everything()
        return self._term()

    def _term(self) -> Term:
        key = self._token
        if key.kind != "word" or key.text not in KEYS:
            raise self._unexpected(f"`all`, `not`, `(` or one of {', '.join(f'{name}=' for name in KEYS)}")
        self._next += 1
        if not self._take_mark("="):
            raise self._unexpected(f"`=` after `{key.text}`")
        value = self._token
        if value.kind not in ("word", "quoted"):
            raise self._unexpected(f"a value for `{key.text}`")
        text = value.text if value.kind == "word" else _ESCAPED.sub(r"\1", value.text[1:-1])
        if not text:
            raise self._unexpected(f"a value for `{key.text}`")
        if key.text == "presence" and text not in PRESENCES:
            raise self._unexpected(f"one of {', '.join(PRESENCES)}")
        if key.text == "percent" and not _PERCENT.fullmatch(text):
            raise self._unexpected("a whole number from 1 to 100")
        self._next += 1
        return Term(key.text, text)

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take_word(self, word: str) -> bool:
        return self._take("word", word)

    def _take_mark(self, mark: str) -> bool:
        return self._take("mark", mark)

    def _take(self, kind: str, text: str) -> bool:
        if self._token.kind != kind or self._token.text.lower() != text:
            return False
        self._next += 1
        return True

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidError(
                f"The target has more than {MAX_DEPTH} parentheses or `not` inside each other. "
                "Nothing was changed; write it more simply."
            )

    def _unexpected(self, expected: str) -> InvalidError:
        found = self._token
        what = "the end" if found.kind == "end" else f"`{found.text[:40]}`"
        return InvalidError(
            f"The target {self._text[:200]!r} cannot be read: at position {found.at + 1} stands {what}, "
            f"expected {expected}. Nothing was changed.",
            position=found.at + 1,
            expected=expected,
        )


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while match := _TOKEN.match(text, at):
        mark, quoted, word, odd = match.groups()
        start = match.start(match.lastindex or 0)
        if mark:
            found.append(_Token("mark", mark, start))
        elif quoted:
            found.append(_Token("quoted", quoted, start))
        elif word:
            found.append(_Token("word", word, start))
        else:
            found.append(_Token("odd", odd, start))  # a quote that is never closed, a lone backslash
        at = match.end()
    found.append(_Token("end", "", len(text)))
    return found
