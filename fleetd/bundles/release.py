"""A release: a bundle with a signed manifest and the encodings in which cameras fetch it.

    built = build_release(bundle, release_id="bees-7", ..., key=key)          the operator's side
    checked = check_release(built.blob, [e.data for e in built.encodings], public_keys)      the server's side

The server trusts nothing that it can find out itself: the signature, every digest, what the encodings unpack to,
what the model is, and whether the boards can run it are all checked again on upload.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from fleetd import boards as board_profiles
from fleetd.boards import BoardProfile
from fleetd.bundles import manifests, romfs
from fleetd.bundles.content import build_content, facts_of, read_content
from fleetd.bundles.encodings import Encoded, cut
from fleetd.bundles.errors import ContentRejectedError, PreflightError, ReleaseError
from fleetd.bundles.inflating import deflate
from fleetd.bundles.opening import Bundle
from fleetd.bundles.patching import make_patch
from fleetd.bundles.preflight import Finding, check, refusals
from fleetd.bundles.signing import OperatorKey, verify
from fleetd.bundles.tflite import Model, read_model
from fleetd.protocol import limits
from fleetd.protocol.manifest import HEADER_BYTES, KEY_ID_BYTES, MAGIC, Content, Manifest

_PATCH_WORTH: Final = 0.8  # of the full encoding: a patch that saves less is not offered
_PATCHES: Final = 15


@dataclass(frozen=True, slots=True)
class BuiltRelease:
    """A release as its maker has it. `encodings` are in the manifest's order; `findings` are only warnings."""

    manifest: Manifest
    blob: bytes
    content: bytes
    encodings: tuple[Encoded, ...]
    findings: tuple[Finding, ...]

    @property
    def digest(self) -> str:
        """The SHA-256 of the signed manifest, by which `down/desired` names the release."""
        return hashlib.sha256(self.blob).hexdigest()


@dataclass(frozen=True, slots=True)
class CheckedRelease:
    """A release as the server knows it after looking at everything itself."""

    manifest: Manifest
    digest: str  # of the signed manifest
    key_id: str
    content: bytes
    labels: tuple[str, ...]
    model: Model
    encodings: tuple[Encoded, ...]
    findings: tuple[Finding, ...]  # warnings


def build_release(
    bundle: Bundle,
    *,
    release_id: str,
    name: str,
    version: str,
    epoch: int,
    sequence: int,
    boards: Sequence[str],
    created: int,
    key: OperatorKey,
    expires: int | None = None,
    threshold: float = 0.0,
    bases: Iterable[bytes] = (),
) -> BuiltRelease:
    """The signed release of this bundle for boards whose omv.arch() starts with one of `boards` ("*": any).

    `bases` are contents that cameras run now: a patch on each is offered where it saves a fifth or more.
    `created` and `expires` are Unix seconds. Raises ModelError, PreflightError or ReleaseError.
    """
    if not boards:
        raise ReleaseError('Name the boards that the release is for, or "*" for any.')
    model = read_model(bundle.model)
    profiles = board_profiles.covered(boards)
    image = build_content(bundle.model, bundle.labels)
    findings = _preflight(model, bundle.labels, profiles, len(image.data))
    full = cut("deflate", deflate(image.data))
    encodings = [full, *_patches(image.data, bases, below=_PATCH_WORTH * full.size)]
    while True:
        try:
            manifest = Manifest(
                format=1,
                release=release_id,
                kind="model",
                name=name,
                version=version,
                epoch=epoch,
                sequence=sequence,
                created=created,
                expires=expires,
                boards=list(boards),
                content=Content(
                    size=len(image.data),
                    sha256=hashlib.sha256(image.data).hexdigest(),
                    files=list(image.files),
                ),
                encodings=[encoded.entry() for encoded in encodings],
                model=facts_of(model, bundle.labels),
                threshold=threshold,
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ReleaseError(
                f"The release cannot be built: {where}: {first['msg']}.", field=where
            ) from None
        payload = manifests.canonical(manifest)
        if HEADER_BYTES + len(payload) <= limits.MANIFEST_BYTES:
            return BuiltRelease(manifest, key.sign(payload), image.data, tuple(encodings), tuple(findings))
        if len(encodings) == 1:
            raise ReleaseError(
                f"The manifest would have {HEADER_BYTES + len(payload)} bytes; at most {limits.MANIFEST_BYTES} "
                "are possible. Name fewer boards.",
                size=HEADER_BYTES + len(payload),
            )
        encodings.pop()  # the patch that saves least


def check_release(
    blob: bytes,
    encodings: Sequence[bytes],
    public_keys: Iterable[bytes],
    *,
    contents: Mapping[str, bytes] | None = None,
) -> CheckedRelease:
    """Everything that can be known of an uploaded release, or the reason why it is refused.

    `encodings` are the bytes of every encoding in the manifest, in any order. `contents` are contents by SHA-256
    that patches may be based on; a patch on another one is left to the camera, which falls back to the full
    encoding when it fails. Raises RejectedError, PreflightError, ModelError or BundleError.
    """
    manifest = verify(blob, public_keys)
    if manifest.kind != "model" or manifest.model is None:
        raise ContentRejectedError(
            "unsupported-kind", f"Releases of kind {manifest.kind!r} are not handled here yet."
        )
    cuts = _matching(manifest, encodings)
    content = _decode(manifest, cuts, contents or {})
    try:
        image = romfs.read(content)
    except ReleaseError as error:
        raise ContentRejectedError("manifest-invalid", str(error)) from None
    if sorted(image.files, key=lambda file: file.path) != sorted(
        manifest.content.files, key=lambda file: file.path
    ):
        raise ContentRejectedError(
            "manifest-invalid", "The files in the content are not those in the manifest."
        )
    profiles = board_profiles.covered(manifest.boards)
    data, labels = read_content(image)
    model = read_model(data)
    findings = _preflight(model, labels, profiles, len(content))
    if facts_of(model, labels) != manifest.model:
        raise ContentRejectedError("manifest-invalid", "The model is not what the manifest says of it.")
    return CheckedRelease(
        manifest=manifest,
        digest=hashlib.sha256(blob).hexdigest(),
        key_id=blob[len(MAGIC) : len(MAGIC) + KEY_ID_BYTES].hex(),
        content=content,
        labels=labels,
        model=model,
        encodings=cuts,
        findings=tuple(findings),
    )


def _preflight(
    model: Model, labels: Sequence[str], profiles: Sequence[BoardProfile], size: int
) -> list[Finding]:
    """The warnings of every board, each once; PreflightError when one of them refuses."""
    findings = dict.fromkeys(
        finding for profile in profiles for finding in check(model, labels, profile, content_bytes=size)
    )
    if refused := refusals(list(findings)):
        raise PreflightError(refused)
    return list(findings)


def _patches(content: bytes, bases: Iterable[bytes], *, below: float) -> list[Encoded]:
    """Patches on these contents that have fewer bytes than `below`, the smallest first."""
    distinct = {hashlib.sha256(base).hexdigest(): base for base in bases if base != content}
    made = [cut("patch", make_patch(base, content), digest) for digest, base in distinct.items()]
    worth = [encoded for encoded in made if encoded.size < below]
    return sorted(worth, key=lambda encoded: encoded.size)[:_PATCHES]


def _matching(manifest: Manifest, encodings: Sequence[bytes]) -> tuple[Encoded, ...]:
    """The uploaded bytes as the manifest's encodings, in its order; each digest and index must fit."""
    uploaded = {hashlib.sha256(data).hexdigest(): data for data in encodings}
    if len(uploaded) != len(encodings) or uploaded.keys() != {entry.sha256 for entry in manifest.encodings}:
        raise ContentRejectedError(
            "digest-mismatch",
            "The encodings that were uploaded are not those in the manifest (changed, missing or too many).",
        )
    cuts = tuple(cut(entry.kind, uploaded[entry.sha256], entry.base) for entry in manifest.encodings)
    if any(
        encoded.size != entry.size or encoded.entry() != entry
        for encoded, entry in zip(cuts, manifest.encodings, strict=True)
    ):
        raise ContentRejectedError(
            "digest-mismatch", "The manifest's size or block index does not fit an encoding."
        )
    return cuts


def _decode(manifest: Manifest, cuts: Sequence[Encoded], contents: Mapping[str, bytes]) -> bytes:
    """The content; every encoding that can be unpacked here must give it."""
    size, content = manifest.content.size, b""
    for encoded in cuts:
        base = None if encoded.base is None else contents.get(encoded.base)
        if encoded.kind == "patch" and base is None:
            continue
        try:
            unpacked = encoded.decode(size, base)
        except ReleaseError as error:
            raise ContentRejectedError(
                "digest-mismatch", f"An encoding cannot be unpacked. {error}"
            ) from None
        if len(unpacked) != size or hashlib.sha256(unpacked).hexdigest() != manifest.content.sha256:
            raise ContentRejectedError("digest-mismatch", "An encoding does not give the manifest's content.")
        content = unpacked
    return content
