"""A release: a bundle with a signed manifest and the encodings in which cameras fetch it.

    built = build_release(bundle, release_id="bees-7", ..., key=key)          the operator's side, or in two steps:
    built = draft_release(packed, release_id="bees-7", ...).sign(key)         (what was packed costs nothing to look at)
    checked = check_release(built.blob, [e.data for e in built.encodings], public_keys)      the server's side

The server trusts nothing that it can find out itself: the signature, every digest, what the encodings unpack to,
what the model is, and whether the boards can run it are all checked again on upload.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from fleetd import boards as board_profiles
from fleetd.bundles import manifests, romfs
from fleetd.bundles.agents import check_agent
from fleetd.bundles.content import facts_of, read_content, read_golden
from fleetd.bundles.encodings import Encoded, cut
from fleetd.bundles.errors import ContentRejectedError, ReleaseError
from fleetd.bundles.golden import Golden
from fleetd.bundles.golden import check as check_golden
from fleetd.bundles.opening import Bundle
from fleetd.bundles.packing import Packed, judge, pack
from fleetd.bundles.preflight import Finding
from fleetd.bundles.signing import OperatorKey, verify
from fleetd.bundles.tflite import Model, read_model
from fleetd.protocol import limits
from fleetd.protocol.manifest import HEADER_BYTES, KEY_ID_BYTES, MAGIC, Content, Manifest


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
    model: Model | None  # None for an agent
    encodings: tuple[Encoded, ...]
    findings: tuple[Finding, ...]  # warnings


@dataclass(frozen=True, slots=True)
class Draft:
    """A release without a signature: `payload` are the manifest's bytes that will be signed."""

    manifest: Manifest
    payload: bytes
    content: bytes
    encodings: tuple[Encoded, ...]
    findings: tuple[Finding, ...]

    @property
    def manifest_bytes(self) -> int:
        """What the signed manifest will have."""
        return HEADER_BYTES + len(self.payload)

    def sign(self, key: OperatorKey) -> BuiltRelease:
        """The release."""
        return BuiltRelease(
            self.manifest, key.sign(self.payload), self.content, self.encodings, self.findings
        )


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
    golden: Golden | None = None,
) -> BuiltRelease:
    """The signed release of this bundle for boards whose omv.arch() starts with one of `boards` ("*": any).

    `bases`, `golden`: see `pack`. `created` and `expires` are Unix seconds. Raises ModelError, PreflightError or
    ReleaseError.
    """
    draft = draft_release(
        pack(bundle, boards, bases, golden),
        release_id=release_id,
        name=name,
        version=version,
        epoch=epoch,
        sequence=sequence,
        created=created,
        expires=expires,
        threshold=threshold,
    )
    return draft.sign(key)


def draft_release(
    packed: Packed,
    *,
    release_id: str,
    name: str,
    version: str,
    epoch: int,
    sequence: int,
    created: int,
    expires: int | None = None,
    threshold: float = 0.0,
) -> Draft:
    """The release as it would be signed. Patches for which the manifest has no room are left out. ReleaseError."""
    encodings = list(packed.encodings)
    content = packed.image.data
    while True:
        try:
            manifest = Manifest(
                format=1,
                release=release_id,
                kind=packed.kind,
                name=name,
                version=version,
                epoch=epoch,
                sequence=sequence,
                created=created,
                expires=expires,
                boards=list(packed.boards),
                content=Content(
                    size=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                    files=list(packed.image.files),
                ),
                encodings=[encoded.entry() for encoded in encodings],
                model=packed.facts,
                threshold=threshold,
                golden=packed.golden,
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ReleaseError(
                f"The release cannot be built: {where}: {first['msg']}.", field=where
            ) from None
        payload = manifests.canonical(manifest)
        draft = Draft(manifest, payload, content, tuple(encodings), packed.findings)
        if draft.manifest_bytes <= limits.MANIFEST_BYTES:
            return draft
        if len(encodings) == 1:
            raise ReleaseError(
                f"The manifest would have {draft.manifest_bytes} bytes; at most {limits.MANIFEST_BYTES} "
                "are possible. Name fewer boards.",
                size=draft.manifest_bytes,
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
    if manifest.kind == "config":
        raise ContentRejectedError(
            "unsupported-kind", "Settings are no release: `fleetctl config set` changes them."
        )
    cuts = _matching(manifest, encodings)
    content = _decode(manifest, cuts, contents or {})
    key_id = blob[len(MAGIC) : len(MAGIC) + KEY_ID_BYTES].hex()
    digest = hashlib.sha256(blob).hexdigest()
    if manifest.kind == "agent":
        board_profiles.covered(manifest.boards)
        check_agent(content, manifest.content.files)
        return CheckedRelease(manifest, digest, key_id, content, (), None, cuts, ())
    if manifest.model is None:
        raise ContentRejectedError("manifest-invalid", "The manifest says nothing about the model.")
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
    check_golden(read_golden(image), manifest.golden, model, len(labels))
    findings = judge(model, labels, profiles, len(content))
    if facts_of(model, labels) != manifest.model:
        raise ContentRejectedError("manifest-invalid", "The model is not what the manifest says of it.")
    return CheckedRelease(
        manifest=manifest,
        digest=digest,
        key_id=key_id,
        content=content,
        labels=labels,
        model=model,
        encodings=cuts,
        findings=tuple(findings),
    )


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
