"""What a camera may take of what a manifest offers: pure decisions, for manifests that open_manifest() has let pass.

RAM BUDGET: 1 KB of code, loaded when an update begins.
"""

from camera_agent import protocol


def accepts(manifest, arch, floor, now, slot_bytes, stage_bytes, base=None, epoch=None, kinds=("model",)):
    """Why this camera must not install the release, as a reason word; None when it may.

    `arch` is omv.arch(), `floor` (epoch, sequence), `now` Unix seconds or None while the clock is not trusted,
    `slot_bytes` the room for content in a slot, `stage_bytes` the room for an encoding, `base` the digest of the
    confirmed content or None, `epoch` the key ring's (None: any), `kinds` what there are slots for. Whether it is the
    very release that runs already is the updater's question.
    """
    if manifest["kind"] not in kinds:
        return "unsupported-kind"
    if not _made_for(manifest["boards"], arch):
        return "wrong-board"
    if (manifest["epoch"], manifest["sequence"]) < tuple(floor):
        return "sequence-too-old"
    if epoch is not None and manifest["epoch"] != epoch:
        return "wrong-epoch"
    expires = manifest.get("expires")
    if now is not None and expires is not None and now >= expires:
        return "expired"
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
