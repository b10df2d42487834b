"""A reader of flatbuffers that trusts nothing: whatever the bytes say, it answers or raises ModelError.

OpenMV's firmware follows the offsets in a model without looking; a bad one can hang the camera. So everything
is checked that the format promises: offsets inside the buffer, tables with a whole vtable, fields inside their
table, vectors that end before the file does, the alignment that the camera's load instructions need, strings
with their terminating zero. A budget bounds the work, because references may point to the same bytes again and
again: a small file can describe a very large tree.
"""

import struct
from typing import Any, Final

from fleetd.bundles.errors import ModelError

WORK: Final = 300_000  # units, about a microsecond each; a real model of 184 tensors needs 20,000
_TABLE_WORK: Final = 8
_ELEMENTS_PER_UNIT: Final = 8
_VTABLE_BYTES: Final = 260  # 128 fields; the largest table of the TFLite schema has fewer than 20

_I32: Final = struct.Struct("<i")
_U32: Final = struct.Struct("<I")
_U16: Final = struct.Struct("<H")
_WIDTHS: Final = {kind: struct.calcsize(f"<{kind}") for kind in "bBhHiIqQf"}


class Source:
    """The bytes of one flatbuffer, and how much work may still be spent on them."""

    def __init__(self, data: bytes, work: int = WORK) -> None:
        self.data = data
        self._left = work
        self._vtables: dict[int, tuple[int, tuple[int, ...]]] = {}

    def root(self) -> "Table":
        """The table that the first four bytes point to."""
        return Table(self, self.u32(0))

    def spend(self, units: int) -> None:
        """Takes `units` from the budget."""
        self._left -= units
        if self._left < 0:
            raise ModelError("The model's structure is far larger than any real model's; it was not read.")

    def u32(self, at: int) -> int:
        """The unsigned 32-bit number at this offset, which every reference and length is."""
        self.need(at, 4, align=4)
        value: int = _U32.unpack_from(self.data, at)[0]
        return value

    def need(self, at: int, size: int, *, align: int = 1) -> None:
        """That `size` bytes lie at `at`, inside the file and aligned."""
        if at < 0 or at + size > len(self.data):
            raise ModelError("The model file is damaged: an offset points past its end (cut short?).", at=at)
        if at % align:
            raise ModelError("The model file is damaged: an offset is not aligned.", at=at)

    def vtable(self, at: int) -> tuple[int, tuple[int, ...]]:
        """The size of the tables that use the vtable at `at`, and where in them each field lies (0: absent)."""
        known = self._vtables.get(at)
        if known is not None:
            return known
        self.need(at, 4, align=2)
        length, size = _U16.unpack_from(self.data, at)[0], _U16.unpack_from(self.data, at + 2)[0]
        if length < 4 or length % 2 or length > _VTABLE_BYTES or size < 4:
            raise ModelError("The model file is damaged: a table's description makes no sense.", at=at)
        self.need(at, length)
        fields = struct.unpack_from(f"<{(length - 4) // 2}H", self.data, at + 4)
        if any(field and not 4 <= field < size for field in fields):
            raise ModelError("The model file is damaged: a field lies outside its table.", at=at)
        self._vtables[at] = (size, fields)
        return self._vtables[at]


class Table:
    """One table. Fields are named by their number in the schema."""

    __slots__ = ("_at", "_fields", "_size", "_source")

    def __init__(self, source: Source, at: int) -> None:
        source.spend(_TABLE_WORK)
        source.need(at, 4, align=4)
        self._source = source
        self._at = at
        self._size, self._fields = source.vtable(at - _I32.unpack_from(source.data, at)[0])
        source.need(at, self._size)

    def has(self, field: int) -> bool:
        """Whether the field is present."""
        return field < len(self._fields) and self._fields[field] != 0

    def integer(self, field: int, kind: str, default: int = 0) -> int:
        """An integer field; `kind` is its struct letter."""
        at = self._place(field, _WIDTHS[kind])
        if at is None:
            return default
        value: int = struct.unpack_from(f"<{kind}", self._source.data, at)[0]
        return value

    def table(self, field: int) -> "Table | None":
        """The table that a field refers to."""
        at = self._target(field)
        return None if at is None else Table(self._source, at)

    def tables(self, field: int, limit: int) -> list["Table"]:
        """A vector of tables, of at most `limit` elements."""
        start, count = self._vector(field, 4, limit)
        self._source.spend(count)
        offsets = struct.unpack_from(f"<{count}I", self._source.data, start)
        return [Table(self._source, start + 4 * n + offset) for n, offset in enumerate(offsets)]

    def integers(self, field: int, kind: str, limit: int) -> tuple[int, ...]:
        """A vector of integers, of at most `limit` elements."""
        return self._numbers(field, kind, limit)

    def floats(self, field: int, limit: int) -> tuple[float, ...]:
        """A vector of 32-bit floats, of at most `limit` elements."""
        return self._numbers(field, "f", limit)

    def span(self, field: int) -> tuple[int, int]:
        """Where a vector of bytes starts and how long it is; (0, 0) when it is absent."""
        return self._vector(field, 1, len(self._source.data))

    def text(self, field: int, limit: int) -> str:
        """A string of at most `limit` bytes; bytes that are not UTF-8 are replaced."""
        start, size = self._vector(field, 1, limit)
        if not start:
            return ""
        self._source.need(start + size, 1)
        if self._source.data[start + size]:
            raise ModelError("The model file is damaged: a text in it does not end.", at=start)
        self._source.spend(1 + size // _ELEMENTS_PER_UNIT)
        return self._source.data[start : start + size].decode("utf-8", "replace")

    def _numbers(self, field: int, kind: str, limit: int) -> tuple[Any, ...]:
        start, count = self._vector(field, _WIDTHS[kind], limit)
        self._source.spend(1 + count // _ELEMENTS_PER_UNIT)
        return struct.unpack_from(f"<{count}{kind}", self._source.data, start)

    def _place(self, field: int, width: int) -> int | None:
        if not self.has(field):
            return None
        offset = self._fields[field]
        if offset + width > self._size:
            raise ModelError("The model file is damaged: a field lies outside its table.", at=self._at)
        self._source.need(self._at + offset, width, align=width)
        return self._at + offset

    def _target(self, field: int) -> int | None:
        at = self._place(field, 4)
        return None if at is None else at + self._source.u32(at)

    def _vector(self, field: int, width: int, limit: int) -> tuple[int, int]:
        """Start of the elements and their number; (0, 0) when the vector is absent."""
        at = self._target(field)
        if at is None:
            return 0, 0
        count = self._source.u32(at)
        if count > limit:
            raise ModelError("The model file is damaged: a list in it is too long.", at=at, count=count)
        self._source.need(at + 4, count * width, align=width if count else 1)
        return at + 4, count
