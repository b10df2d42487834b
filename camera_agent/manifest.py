"""What a camera trusts: a release's signed manifest. The exact bytes are described in fleetd/protocol/manifest.py.

Rules, in this order: at most 8 KB; our magic; a key we hold; the signature over SHA-256(magic || key id || JSON);
only then is anything parsed, and everything that is used has its type and range checked. Unknown fields are
ignored; encodings of an unknown kind are skipped, so that a newer fleetd can offer more than we understand.
What of it a camera may take is decided in camera_agent/offers.py. Nothing here reads a clock or storage.

RAM BUDGET: open_manifest makes no copy of the JSON (at most 8 KB); what json.loads makes of it is twice to three times
as much (measured on a 32-bit build: 1.0 KB to 2.5 KB, 7.1 KB to 14.6 KB). The 2 KB of the signature check are free
again before parsing begins.
"""

import hashlib
import json

from camera_agent import crypto, protocol
from camera_agent.errors import ManifestError
from camera_agent.heap import IS_MICROPYTHON, collect, const, forget, load

_MAGIC = const(b"FLM1")
_SIGNED_HEAD = const(4 + 8)  # magic and key id
HEADER_BYTES = const(_SIGNED_HEAD + 64)  # and the signature


def open_manifest(blob, keys):
    """The manifest's JSON object, its signature verified and its structure checked. Raises ManifestError; StorageError
    when the code for it cannot be read.

    `blob` is bytes-like, `keys` a dict from crypto.keyring(). Cannot be split: 0.2-0.25 s at 600 MHz.
    """
    manifest = open_signed(blob, keys, _MAGIC)
    try:
        load("fields").check(manifest)
    finally:
        forget("fields")
    return manifest


def open_signed(blob, keys, magic):
    """What one of these keys signed under this magic, parsed and not yet checked. Raises as open_manifest does."""
    if len(blob) > protocol.MANIFEST_BYTES:
        raise ManifestError("manifest-invalid", "%d bytes, at most %d" % (len(blob), protocol.MANIFEST_BYTES))
    view = memoryview(blob)
    if len(view) <= HEADER_BYTES or view[: len(_MAGIC)] != magic:
        raise ManifestError("signature-invalid", "not a signed manifest")
    key = keys.get(bytes(view[len(_MAGIC) : _SIGNED_HEAD]))
    if key is None:
        raise ManifestError("unknown-key", "signed by " + crypto.hexed(view[len(_MAGIC) : _SIGNED_HEAD]))
    signed = hashlib.sha256(view[:_SIGNED_HEAD])
    signed.update(view[HEADER_BYTES:])
    collect()
    genuine = crypto.verify(key, view[_SIGNED_HEAD:HEADER_BYTES], signed.digest())
    collect()
    if not genuine:
        raise ManifestError("signature-invalid", "the signature does not match")
    try:
        text = view[HEADER_BYTES:]  # MicroPython's json reads buffers, too, and refuses what is not UTF-8
        return json.loads(text if IS_MICROPYTHON else str(text, "utf-8"))
    except MemoryError:
        raise ManifestError("out-of-memory", "the manifest does not fit into memory") from None
    except (ValueError, RuntimeError):  # RuntimeError: nested too deeply
        raise ManifestError("manifest-invalid", "not JSON") from None
