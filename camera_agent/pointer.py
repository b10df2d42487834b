"""The two-copy pointer that says which slot counts. What follows from it is decided in camera_agent/decision.py.

A record has 64 bytes, little endian: b"FPT1" | u32 counter | u8 confirmed (0 none, 1 a, 2 b) | u8 trial | u8 attempts |
u8 flags (1: the trial is a fallback) | u32 floor epoch | u32 floor sequence | 16 bytes: mark of the release that failed
its trial last (zero: none) | u8 why (index into REASONS) | u8 failures | u8 open | zero | u64 generation of the trial |
zero | u32 crc32 of all before. `failures` and `open` are the boot-loop guard's (camera_agent/guard.py) and zero for
models. There are two copies, written in turn; the valid one with the higher counter wins.

RAM BUDGET: records of 64 bytes; a Pointer object is about 200 bytes.
"""

import struct
from binascii import crc32

from camera_agent import crypto
from camera_agent.heap import const

POINTER_BYTES = const(64)
FALLBACK = const(1)  # flag: the trial stands in for a damaged confirmed slot, so the floor does not bind it
NO_MARK = bytes(16)

# What a boot record's `failures` mean: see camera_agent/guard.py.
CRASH = 3  # what a failed start adds
SAFE = 9  # from here on safe mode
FILES_ONLY = 18  # ... with the agent on the drive
PROBATION = SAFE - CRASH  # after safe mode: one more crash leads back there
GAVE_UP = 255  # attempts of a trial that the agent has ended itself; `why` says why

# Why a trial was reverted; the position is what storage keeps, so words are only ever appended.
REASONS = (
    "trial-crashed",
    "trial-hung",
    "model-load-failed",
    "labels-mismatch",
    "golden-mismatch",
    "inference-too-slow",
    "out-of-memory",
    "unsupported-op",
    "boot-loop",
    "low-power",
    "connection-lost",
)

_MAGIC = const(b"FPT1")
_RECORD = const("<4sIBBBBII16sBBBBQ")
_BODY = const(60)


def release_mark(release):
    """The 16 bytes by which the pointer remembers a release id."""
    return crypto.sha256(release.encode())[:16]


class Pointer:
    """One pointer record. Treated as a value: `but()` makes a changed copy."""

    FIELDS = (
        "counter",
        "confirmed",
        "trial",
        "attempts",
        "flags",
        "epoch",
        "sequence",
        "failed",
        "why",
        "generation",
        "failures",
        "open",
    )

    def __init__(self):
        self.counter = self.confirmed = self.trial = self.attempts = self.flags = 0
        self.epoch = self.sequence = self.why = self.generation = self.failures = self.open = 0
        self.failed = NO_MARK

    def but(self, **changes):
        """A copy with these fields changed."""
        copy = Pointer()
        for name in self.FIELDS:
            setattr(copy, name, changes.get(name, getattr(self, name)))
        return copy

    def __eq__(self, other):
        return isinstance(other, Pointer) and encode_pointer(self) == encode_pointer(other)

    def __hash__(self):
        return hash(encode_pointer(self))


def encode_pointer(pointer):
    """The record's 64 bytes."""
    body = struct.pack(
        _RECORD,
        _MAGIC,
        pointer.counter,
        pointer.confirmed,
        pointer.trial,
        pointer.attempts,
        pointer.flags,
        pointer.epoch,
        pointer.sequence,
        pointer.failed,
        pointer.why,
        pointer.failures,
        pointer.open,
        0,
        pointer.generation,
    )
    body += bytes(_BODY - len(body))
    return body + struct.pack("<I", crc32(body))


def decode_pointer(record):
    """The Pointer in these bytes, or None when they are not one."""
    if len(record) < POINTER_BYTES:
        return None
    record = bytes(record[:POINTER_BYTES])
    if crc32(record[:_BODY]) != struct.unpack_from("<I", record, _BODY)[0]:
        return None
    fields = struct.unpack_from(_RECORD, record, 0)
    if fields[0] != _MAGIC or fields[2] > 2 or fields[3] > 2:
        return None
    if fields[3] and fields[3] == fields[2]:
        return None
    pointer = Pointer()
    (pointer.counter, pointer.confirmed, pointer.trial, pointer.attempts, pointer.flags) = fields[1:6]
    (pointer.epoch, pointer.sequence, pointer.failed, pointer.why) = fields[6:10]
    (pointer.failures, pointer.open) = fields[10:12]
    pointer.generation = fields[13]
    return pointer


def newest(first, second):
    """Which of the two copies (Pointer or None) counts: 0 or 1; None when neither is valid."""
    if first is None and second is None:
        return None
    if second is None:
        return 0
    return 1 if first is None or second.counter > first.counter else 0


def why_code(reason):
    """The byte under which the pointer keeps why a trial was reverted."""
    return REASONS.index(reason) if reason in REASONS else 0
