"""What a camera trusts: a release's signed manifest. The exact bytes are described in fleetd/protocol/manifest.py.

Rules, in this order: at most 8 KB; our magic; a key we hold; the signature over SHA-256(magic || key id || JSON);
only then is anything parsed, and everything that is used has its type and range checked. Unknown fields are
ignored; encodings of an unknown kind are skipped, so that a newer fleetd can offer more than we understand.
`accepts` and `choose_encoding` are pure decisions. Nothing here reads a clock or storage.

RAM BUDGET: open_manifest makes no copy of the JSON (at most 8 KB); what json.loads makes of it is twice to three times
as much (measured on a 32-bit build: 1.0 KB to 2.5 KB, 7.1 KB to 14.6 KB). The 2 KB of the signature check are free
again before parsing begins.
"""

import hashlib
import json

from camera_agent import crypto, protocol
from camera_agent.errors import AgentError
from camera_agent.heap import IS_SMALL, collect, const

_MAGIC = const(b"FLM1")
_SIGNED_HEAD = const(4 + 8)  # magic and key id
HEADER_BYTES = const(_SIGNED_HEAD + 64)  # and the signature
_DIGESTS_PER_INDEX = const(4096 // 32)
_ENCODED_BYTES = protocol.CONTENT_BYTES + protocol.CONTENT_BYTES // 8
_PATH_CHARS = const("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_FILES = const(16)
_ENCODINGS = const(16)
_INDEX_BLOCKS = const(64)
_BOARDS = const(32)
_OPS = const(128)
_DIMENSIONS = const(8)


class ManifestError(AgentError):
    """The manifest is not to be trusted. `reason` is a word of `up/update`, `detail` says what is wrong."""


def open_manifest(blob, keys):
    """The manifest's JSON object, its signature verified and its structure checked. Raises ManifestError.

    `blob` is bytes-like, `keys` a dict from crypto.keyring(). Cannot be split: 0.2-0.25 s at 600 MHz.
    """
    if len(blob) > protocol.MANIFEST_BYTES:
        raise ManifestError("manifest-invalid", "%d bytes, at most %d" % (len(blob), protocol.MANIFEST_BYTES))
    view = memoryview(blob)
    if len(view) <= HEADER_BYTES or view[: len(_MAGIC)] != _MAGIC:
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
        manifest = json.loads(text if IS_SMALL else str(text, "utf-8"))
    except MemoryError:
        raise ManifestError("out-of-memory", "the manifest does not fit into memory") from None
    except (ValueError, RuntimeError):  # RuntimeError: nested too deeply
        raise ManifestError("manifest-invalid", "not JSON") from None
    _check(manifest)
    return manifest


def digest_of(blob):
    """SHA-256 of the signed manifest's bytes in hex, as `down/desired` names it."""
    return crypto.hexed(crypto.sha256(blob))


# --- structure --------------------------------------------------------------------------------------------


def _bad(field):
    raise ManifestError("manifest-invalid", field)


def _integer(table, name, least, most):
    value = table.get(name)
    if type(value) is not int or not least <= value <= most:
        _bad(name)
    return value


def _number(table, name, least, most):
    value = table.get(name, 0)
    if type(value) not in (int, float) or not least <= value <= most:
        _bad(name)


def _text(value, name, most):
    if type(value) is not str or not 0 < len(value) <= most or "\x00" in value:
        _bad(name)
    return value


def _list(table, name, least, most):
    value = table.get(name)
    if type(value) is not list or not least <= len(value) <= most:
        _bad(name)
    return value


def _table(value, name):
    if type(value) is not dict:
        _bad(name)
    return value


def _digest(table, name):
    if not protocol.is_digest(table.get(name)):
        _bad(name)


def _check(manifest):
    """Raise ManifestError unless every field has the type and range that fleetd/protocol/manifest.py names."""
    _table(manifest, "not an object")
    _integer(manifest, "format", 1, 1)
    if not protocol.is_release_id(manifest.get("release")):
        _bad("release")
    _text(manifest.get("kind"), "kind", protocol.WORD_CHARS)
    _text(manifest.get("name"), "name", 64)
    _text(manifest.get("version"), "version", 32)
    _integer(manifest, "epoch", 1, 2**31 - 1)
    _integer(manifest, "sequence", 1, 2**32 - 1)
    _integer(manifest, "created", 0, protocol.SEQ_MAX)
    if manifest.get("expires") is not None:
        _integer(manifest, "expires", 0, protocol.SEQ_MAX)
    for board in _list(manifest, "boards", 1, _BOARDS):
        _text(board, "boards", protocol.WORD_CHARS)
    _check_content(_table(manifest.get("content"), "content"))
    for encoding in _list(manifest, "encodings", 1, _ENCODINGS):
        _check_encoding(_table(encoding, "encodings"))
    if manifest.get("model") is not None:
        _check_model(_table(manifest["model"], "model"))
    _number(manifest, "threshold", 0, 1)


def _check_content(content):
    size = _integer(content, "size", 1, protocol.CONTENT_BYTES)
    _digest(content, "sha256")
    for file in _list(content, "files", 1, _FILES):
        _table(file, "files")
        for char in _text(file.get("path"), "path", 48):
            if char not in _PATH_CHARS:
                _bad("path")
        offset = _integer(file, "offset", 0, size)
        _integer(file, "size", 0, size - offset)
        _digest(file, "sha256")


def _check_encoding(encoding):
    if _text(encoding.get("kind"), "kind", protocol.WORD_CHARS) not in ("deflate", "patch"):
        return  # for a newer agent; choose_encoding passes it by
    if encoding["kind"] == "patch" or encoding.get("base") is not None:
        _digest(encoding, "base")
    blocks = blocks_of(_integer(encoding, "size", 1, _ENCODED_BYTES))
    _digest(encoding, "sha256")
    index = _list(encoding, "index", 1, _INDEX_BLOCKS)
    if len(index) != -(-blocks // _DIGESTS_PER_INDEX):
        _bad("index")
    for digest in index:
        if not protocol.is_digest(digest):
            _bad("index")


def _check_model(model):
    for side in ("input", "output"):
        facts = _table(model.get(side), side)
        for dimension in _list(facts, "shape", 0, _DIMENSIONS):
            if type(dimension) is not int:
                _bad("shape")
        _text(facts.get("dtype"), "dtype", protocol.WORD_CHARS)
        _number(facts, "scale", -1e30, 1e30)
        if type(facts.get("zero_point", 0)) is not int:
            _bad("zero_point")
    _integer(model, "labels", 1, protocol.LABELS)
    ops = model.get("ops", [])
    if type(ops) is not list or len(ops) > _OPS:
        _bad("ops")
    for op in ops:
        _text(op, "ops", protocol.WORD_CHARS)
    arena = model.get("arena_bytes")
    if arena is not None and type(arena) is not int:
        _bad("arena_bytes")


# --- decisions --------------------------------------------------------------------------------------------


def blocks_of(size):
    """How many blocks of 4096 bytes `size` bytes are."""
    return -(-size // protocol.BLOCK_BYTES)


def accepts(manifest, arch, floor, now, slot_bytes, stage_bytes, base=None):
    """Why this camera must not install the release, as a reason word; None when it may.

    `arch` is omv.arch(), `floor` (epoch, sequence), `now` Unix seconds or None while the clock is not trusted,
    `slot_bytes` the room for content in a slot, `stage_bytes` the room for an encoding, `base` the digest of the
    confirmed content or None. Whether it is the very release that runs already is the updater's question.
    """
    if not _made_for(manifest["boards"], arch):
        return "wrong-board"
    if (manifest["epoch"], manifest["sequence"]) < tuple(floor):
        return "sequence-too-old"
    expires = manifest.get("expires")
    if now is not None and expires is not None and now >= expires:
        return "expired"
    if manifest["kind"] != "model":
        return "unsupported-kind"
    if manifest["content"]["size"] > slot_bytes:
        return "not-enough-storage"
    if choose_encoding(manifest, protocol.CONTENT_BYTES * 2, base) is None:
        return "unsupported-encoding"
    if choose_encoding(manifest, stage_bytes, base) is None:
        return "not-enough-storage"
    return None


def choose_encoding(manifest, stage_bytes, base=None):
    """The smallest encoding that this camera can unpack and has room for, or None. A patch needs its base."""
    best = None
    for encoding in manifest["encodings"]:
        usable = encoding["kind"] == "deflate" or (
            encoding["kind"] == "patch" and base is not None and encoding["base"] == base
        )
        if usable and encoding["size"] <= stage_bytes and (best is None or encoding["size"] < best["size"]):
            best = encoding
    return best


def _made_for(boards, arch):
    for board in boards:
        if board == "*" or arch.startswith(board):
            return True
    return False
