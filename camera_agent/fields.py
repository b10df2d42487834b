"""Whether a manifest has the structure that fleetd/protocol/manifest.py describes: part of camera_agent/manifest.py,
which asks after it has verified the signature.

RAM BUDGET: 3 KB of code, loaded when a manifest is opened.
"""

from camera_agent import protocol
from camera_agent.errors import ManifestError
from camera_agent.heap import const

_DIGESTS_PER_INDEX = const(4096 // 32)
_ENCODED_BYTES = protocol.CONTENT_BYTES + protocol.CONTENT_BYTES // 8
_PATH_CHARS = const("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_FILES = const(16)
_ENCODINGS = const(16)
_INDEX_BLOCKS = const(64)
_BOARDS = const(32)
_OPS = const(128)
_DIMENSIONS = const(8)
_GOLDEN_FRAMES = const(8)


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


def check(manifest):
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
    golden = manifest.get("golden")
    if golden is not None:
        _integer(_table(golden, "golden"), "frames", 1, _GOLDEN_FRAMES)
        _number(golden, "tolerance", 0, 1)
        if "tolerance" not in golden:
            _bad("tolerance")


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
    blocks = protocol.blocks_of(_integer(encoding, "size", 1, _ENCODED_BYTES))
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
