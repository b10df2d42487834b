"""ES256 signature checks (ECDSA on P-256 over SHA-256) and SHA-256 helpers, on stock MicroPython and CPython.

Only verification: every input is public, so nothing here needs to run in constant time. Keys are 64 bytes
(x || y), signatures 64 bytes (r || s), both big endian. A high s is accepted, as ES256 (RFC 7518) does.

RAM BUDGET: under 1 KB; during verify() 2 KB of code (camera_agent/p256.py) and 2 KB of numbers. It leaves 1 MB of
short-lived big integers behind, so collect before and after and never call it between two frames that matter
(0.2-0.25 s at 600 MHz).
"""

import hashlib

from camera_agent.heap import const, forget, load

_PUBLIC_KEY_BYTES = const(64)
_SIGNATURE_BYTES = const(64)
_KEY_ID_BYTES = const(8)
_DIGEST_BYTES = const(32)


def sha256(data):
    """SHA-256 of bytes or a memoryview, as 32 bytes."""
    return hashlib.sha256(data).digest()


def hexed(raw):
    """Lower-case hex of some bytes, as str (MicroPython's hashes have no hexdigest)."""
    return "".join(["%02x" % byte for byte in raw])


def key_id(public_key):
    """The 8 bytes by which a manifest names the 64-byte key that signed it."""
    return sha256(public_key)[:_KEY_ID_BYTES]


def keyring(public_keys):
    """A dict from key id to key, as open_manifest wants it. A key of the wrong length raises ValueError."""
    ring = {}
    for public_key in public_keys:
        if len(public_key) != _PUBLIC_KEY_BYTES:
            raise ValueError("a public key has 64 bytes: x and y")
        ring[key_id(public_key)] = bytes(public_key)
    return ring


class Ring:
    """The keys of a camera, and which key record (camera_agent/keyring.py) they are from. The dicts stay the same
    objects, so that whoever holds one sees a change."""

    def __init__(self, keys, recovery=(), serial=0, epoch=1):
        self.serial = serial
        self.epoch = epoch  # only releases of this one are taken
        self.trusted = keyring(keys)  # may sign releases
        self.recovery = keyring(
            recovery
        )  # may sign the next key record; if there are none, the trusted ones may
        self.known = keyring(keys)  # the trusted ones, and those that signed what lies in a slot from before


def verify(public_key, signature, digest):
    """Whether `signature` (64 bytes) over the 32-byte SHA-256 `digest` was made with this key. Never raises
    for wrong values; wrong lengths answer False. StorageError or MemoryError: it could not be checked."""
    if (
        len(public_key) != _PUBLIC_KEY_BYTES
        or len(signature) != _SIGNATURE_BYTES
        or len(digest) != _DIGEST_BYTES
    ):
        return False
    try:
        return load("p256").verify(public_key, signature, digest)
    finally:
        forget("p256")


def digest_of(blob):
    """SHA-256 of a signed manifest's bytes in hex, as `down/desired` names it."""
    return hexed(sha256(blob))
