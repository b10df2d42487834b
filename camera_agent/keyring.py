"""Whose signatures a camera trusts, how that changes over the air, and how it lies on storage.

config.json names the first keys. From then on a *key record* may replace them: signed like a manifest (b"FKR1" instead
of b"FLM1"), by a recovery key if the camera knows any, else by a key it trusts. A record counts only if its serial
number is the next one and its epoch the same or the next: whoever steals a key cannot run ahead of its owner, and a
camera that was away takes one record after the other. A new epoch begins its sequence numbers anew.

What the camera runs is not touched: keys that signed what it has stay known, for reading only, sixteen in all.

On storage, beside each copy of the pointer: b"FKY1" | u32 serial | u32 epoch | u8 trusted | u8 recovery | u8 others |
u8 0 | 8 bytes: mark of the keys in config.json | 64 bytes for each key | u32 crc32 of all before. When config.json
names other keys than it did, its owner has provisioned the camera anew, and these count.

RAM BUDGET: 3 KB of code, loaded at the start and when a record has come; a record of at most 2 KB meanwhile.
"""

import struct
from binascii import crc32, unhexlify

from camera_agent import crypto, protocol
from camera_agent.errors import ManifestError, StorageError
from camera_agent.heap import const, forget, load
from camera_agent.pointer import Pointer

RECORD_BYTES = const(2048)
KEYS = const(8)  # trusted and recovery keys together
_KNOWN = const(16)  # all that are kept
_MAGIC = const(b"FKR1")
_RING_MAGIC = const(b"FKY1")
_HEAD = const("<4sIIBBBB8s")
_HEAD_BYTES = const(24)
_KEY_BYTES = const(64)


def settle(ring, slots):
    """At the start: `ring` is what config.json says; take over what storage says, if that followed from it."""
    mark = mark_of(ring)
    stored = slots.read_ring(unpack)
    if stored:
        if stored[1] == mark:
            _replace(ring, stored[0])
        else:
            _keep(ring, stored[0].known, slots.signers())
    slots.ring = pack(ring, mark)
    return mark


def adopt(blob, ring, slots, mark):
    """Take over the next key record, in memory and on storage. Raises ManifestError, which changes
    nothing, or StorageError: then storage may have it already."""
    signers = ring.recovery or ring.trusted
    try:
        record = load("manifest").open_signed(blob, signers, _MAGIC)
    finally:
        forget("manifest")
    new = check(record)
    if new.serial != ring.serial + 1:
        raise ManifestError("sequence-too-old", "key record %d after %d" % (new.serial, ring.serial))
    if not ring.epoch <= new.epoch <= ring.epoch + 1:
        raise ManifestError("wrong-epoch", "epoch %d after %d" % (new.epoch, ring.epoch))
    _keep(new, ring.known, slots.signers())
    before = slots.ring
    slots.ring = pack(new, mark)
    try:
        slots.write_pointer(slots.pointer or Pointer())
    except StorageError:
        slots.ring = before
        raise
    _replace(ring, new)


def check(record):
    """The Ring that a record's JSON object names. Raises ManifestError."""
    if type(record) is not dict or record.get("format") != 1:
        raise ManifestError("manifest-invalid", "format")
    for name, most in (("serial", 2**31 - 1), ("epoch", 2**31 - 1), ("created", protocol.SEQ_MAX)):
        if type(record.get(name)) is not int or not 0 < record[name] <= most:
            raise ManifestError("manifest-invalid", name)
    keys, recovery = _keys(record, "keys", 1), _keys(record, "recovery", 0)
    if len(keys) + len(recovery) > KEYS:
        raise ManifestError("manifest-invalid", "keys")
    return crypto.Ring(keys, recovery, record["serial"], record["epoch"])


def _keys(record, name, least):
    found = record.get(name, [])
    if type(found) is not list or not least <= len(found) <= KEYS:
        raise ManifestError("manifest-invalid", name)
    for key in found:
        if type(key) is not str or not protocol.is_digest(key[:64]) or not protocol.is_digest(key[64:]):
            raise ManifestError("manifest-invalid", name)
    return [unhexlify(key) for key in found]


def mark_of(ring):
    """By which storage knows what config.json said."""
    text = b"%d %d " % (ring.serial, ring.epoch)
    parts = [b"".join(sorted(keys.values())) for keys in (ring.trusted, ring.recovery)]
    return crypto.sha256(text + b"|".join(parts))[:8]


def pack(ring, mark):
    """The ring as it lies on storage."""
    trusted, recovery = list(ring.trusted.values()), list(ring.recovery.values())
    others = [key for id_, key in ring.known.items() if id_ not in ring.trusted]
    others = others[: _KNOWN - len(trusted) - len(recovery)]
    counts = (len(trusted), len(recovery), len(others))
    body = struct.pack(_HEAD, _RING_MAGIC, ring.serial, ring.epoch, counts[0], counts[1], counts[2], 0, mark)
    body += b"".join(trusted + recovery + others)
    return body + struct.pack("<I", crc32(body))


def unpack(data):
    """(Ring, mark) in these bytes, or None."""
    magic, serial, epoch, trusted, recovery, others, _zero, mark = struct.unpack_from(_HEAD, data, 0)
    count = trusted + recovery + others
    end = _HEAD_BYTES + _KEY_BYTES * count
    if magic != _RING_MAGIC or not trusted or count > _KNOWN:
        return None
    if crc32(memoryview(data)[:end]) != struct.unpack_from("<I", data, end)[0]:
        return None
    keys = [bytes(data[at : at + _KEY_BYTES]) for at in range(_HEAD_BYTES, end, _KEY_BYTES)]
    ring = crypto.Ring(keys[:trusted], keys[trusted : trusted + recovery], serial, epoch)
    ring.known.update(crypto.keyring(keys[trusted + recovery :]))
    return ring, mark


def _keep(ring, known, first):
    """Go on knowing these keys, for what they have signed: storage has room for some, for those with the `first` ids
    before all others."""
    for id_ in first:
        if id_ in known:
            ring.known[id_] = known[id_]
    for id_ in known:
        ring.known[id_] = known[id_]


def _replace(ring, new):
    ring.serial = new.serial
    ring.epoch = new.epoch
    for name in ("trusted", "recovery", "known"):
        keys = getattr(ring, name)
        keys.clear()
        keys.update(getattr(new, name))
