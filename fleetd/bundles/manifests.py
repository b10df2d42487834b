"""A manifest's JSON: written one way only, and read with everything checked that its fields promise each other."""

import json
from itertools import pairwise

from pydantic import ValidationError

from fleetd.bundles.errors import ManifestRejectedError
from fleetd.protocol.manifest import DIGESTS_PER_INDEX_BLOCK, Manifest


def canonical(manifest: Manifest) -> bytes:
    """The one form in which a manifest is signed: sorted keys, no spaces, absent fields left out, UTF-8."""
    fields = manifest.model_dump(mode="json", exclude_none=True)
    return json.dumps(
        fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def parse(payload: bytes) -> Manifest:
    """The manifest in these JSON bytes. Raises ManifestRejectedError (manifest-invalid)."""
    try:
        manifest = Manifest.model_validate_json(payload, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "its JSON"
        raise ManifestRejectedError(
            "manifest-invalid", f"In the manifest, {where}: {first['msg']}."
        ) from None
    if wrong := _contradiction(manifest):
        raise ManifestRejectedError("manifest-invalid", f"In the manifest, {wrong}.")
    return manifest


def _contradiction(manifest: Manifest) -> str | None:
    """What in the manifest cannot be true together with the rest of it; None when it is consistent."""
    files = sorted(manifest.content.files, key=lambda file: file.offset)
    if len({file.path for file in files}) != len(files):
        return "a file is listed twice"
    if any(one.offset + one.size > two.offset for one, two in pairwise(files)):
        return "files overlap"
    if files[-1].offset + files[-1].size > manifest.content.size:
        return "a file lies outside the content"
    if len({encoding.sha256 for encoding in manifest.encodings}) != len(manifest.encodings):
        return "an encoding is listed twice"
    for encoding in manifest.encodings:
        if len(encoding.index) != -(-encoding.blocks // DIGESTS_PER_INDEX_BLOCK):
            return "an encoding's index does not fit its size"
        if (encoding.kind == "patch") != (encoding.base is not None):
            return "a patch names its base, and nothing else does"
    if all(encoding.kind != "deflate" for encoding in manifest.encodings):
        return "there is no encoding that a camera without a base could use"
    return None
