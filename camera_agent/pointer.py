"""The two-copy pointer that says which slot counts, and the decision what to run at boot. All of it is pure.

A record has 64 bytes, little endian: b"FPT1" | u32 counter | u8 confirmed (0 none, 1 a, 2 b) | u8 trial | u8 attempts |
u8 flags (1: the trial is a fallback) | u32 floor epoch | u32 floor sequence | 16 bytes: mark of the release that failed
its trial last (zero: none) | u8 why (index into REASONS) | 3 zero | u64 generation of the trial | zero | u32 crc32 of
all before. There are two copies, written in turn; the valid one with the higher counter wins.

RAM BUDGET: records of 64 bytes; a Pointer object is about 200 bytes.
"""

import struct
from binascii import crc32

from camera_agent import crypto
from camera_agent.heap import const

ATTEMPTS = const(2)  # how often a trial may start before it is reverted
FALLBACK_ATTEMPTS = (
    8  # nothing stands behind a fallback: a few unlucky power cuts must not cost the last model
)
POINTER_BYTES = const(64)
FALLBACK = const(1)  # flag: the trial stands in for a damaged confirmed slot, so the floor does not bind it
NO_MARK = bytes(16)

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
    )

    def __init__(self):
        self.counter = self.confirmed = self.trial = self.attempts = self.flags = 0
        self.epoch = self.sequence = self.why = self.generation = 0
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
        0,
        0,
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
    pointer.generation = fields[13]
    return pointer


def newest(first, second):
    """Which of the two copies (Pointer or None) counts: 0 or 1; None when neither is valid."""
    if first is None and second is None:
        return None
    if second is None:
        return 0
    return 1 if first is None or second.counter > first.counter else 0


# --- what to run ------------------------------------------------------------------------------------------


class Decision:
    """What to do at boot. `use`: slot to run (0: none). `trial`: whether it is one. `pointer`: what has to be on
    storage before that, or None when nothing changes. `ended`: (slot, state, reason) of a trial that is over, or
    None. `wipe`: the slot whose header is to be wiped afterwards (0: none). `problem`: a word for the status."""

    def __init__(self, use, trial, pointer, ended, wipe, problem):
        self.use = use
        self.trial = trial
        self.pointer = pointer
        self.ended = ended
        self.wipe = wipe
        self.problem = problem


def decide(pointer, look, crash_reason="trial-crashed"):
    """Which slot to run and what to write first. Pure, given `look`.

    `look(slot)` answers the slot's facts (.epoch, .sequence, .mark), or None when header, signature or content are
    not in order; it is expensive and only asked where the answer matters. Rules:
    - a trial that has started twice (a fallback: eight times) is over: reverted, remembered by its mark, wiped;
    - a trial below the floor or damaged is dropped, without a mark: the release may be sent again;
    - the confirmed slot runs, whatever the floor says;
    - if it is damaged, the other slot stands in, on trial, unless that release has failed its trial; should the
      confirmed one read well again, it runs again;
    - without any pointer the older of two valid slots is the one that has proven itself (a newer one may never
      have run); a single valid slot runs on trial.
    """
    if pointer is None:
        return _decide_without_pointer(look)
    now, ended, wipe = pointer, None, 0
    if pointer.trial:
        facts = look(pointer.trial)
        floor = (pointer.epoch, pointer.sequence)
        fallback = pointer.flags & FALLBACK
        if fallback and pointer.confirmed and look(pointer.confirmed):
            healed = pointer.but(trial=0, attempts=0, flags=0)
            return Decision(pointer.confirmed, False, healed, None, 0, None)
        if pointer.attempts >= (FALLBACK_ATTEMPTS if fallback else ATTEMPTS):
            ended = (pointer.trial, "reverted", crash_reason)
            mark = facts.mark if facts else pointer.failed
            why = why_code(crash_reason) if facts else pointer.why
            now = pointer.but(trial=0, attempts=0, flags=0, failed=mark, why=why)
            wipe = pointer.trial
        elif facts is None or ((facts.epoch, facts.sequence) < floor and not fallback):
            ended = (pointer.trial, "failed", "digest-mismatch" if facts is None else "sequence-too-old")
            now = pointer.but(trial=0, attempts=0, flags=0)
            wipe = pointer.trial
        else:
            return Decision(pointer.trial, True, pointer.but(attempts=pointer.attempts + 1), None, 0, None)
    changed = None if now is pointer else now
    if now.confirmed and look(now.confirmed):
        return Decision(now.confirmed, False, changed, ended, wipe, None)
    problem = "slot-damaged" if now.confirmed else None
    for slot in (1, 2):
        if slot in (now.confirmed, wipe):
            continue
        facts = look(slot)
        if facts and facts.mark != now.failed:
            standing_in = now.but(trial=slot, attempts=1, flags=FALLBACK, generation=0)
            return Decision(slot, True, standing_in, ended, wipe, problem)
    return Decision(0, False, changed, ended, wipe, problem or "no-model")


def _decide_without_pointer(look):
    fresh = Pointer()
    a, b = look(1), look(2)
    if a and b:
        older = 1 if (a.epoch, a.sequence) <= (b.epoch, b.sequence) else 2
        facts = a if older == 1 else b
        pointer = fresh.but(confirmed=older, epoch=facts.epoch, sequence=facts.sequence)
        return Decision(older, False, pointer, None, 0, "pointer-lost")
    if a or b:
        slot = 1 if a else 2
        return Decision(
            slot, True, fresh.but(trial=slot, attempts=1, flags=FALLBACK), None, 0, "pointer-lost"
        )
    return Decision(0, False, None, None, 0, "no-model")


def why_code(reason):
    """The byte under which the pointer keeps why a trial was reverted."""
    return REASONS.index(reason) if reason in REASONS else 0
