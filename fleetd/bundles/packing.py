"""What a release carries, before it has a number and a signature: its content, and the forms in which it travels.

    packed = pack(bundle, ["OMVRT1060"], bases=[content that cameras run now])
    packed.full, packed.patches

Packing takes the time (compressing, finding patches); naming and signing what was packed is `release`'s business.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fleetd import boards as board_profiles
from fleetd.boards import BoardProfile
from fleetd.bundles.content import build_content, facts_of, read_content
from fleetd.bundles.encodings import Encoded, cut
from fleetd.bundles.errors import PreflightError, ReleaseError
from fleetd.bundles.golden import TOLERANCE, Golden
from fleetd.bundles.golden import build as build_golden
from fleetd.bundles.golden import check as check_golden
from fleetd.bundles.inflating import deflate
from fleetd.bundles.opening import Bundle
from fleetd.bundles.patching import make_patch
from fleetd.bundles.preflight import Finding, check, refusals
from fleetd.bundles.romfs import Image
from fleetd.bundles.romfs import read as read_image
from fleetd.bundles.tflite import Model, read_model
from fleetd.protocol.manifest import GoldenFacts, Manifest, ModelFacts

PATCH_WORTH: Final = 0.8  # of the full encoding: a patch that saves less is not offered
_PATCHES: Final = 15  # with the full one all that a manifest may list


@dataclass(frozen=True, slots=True)
class Packed:
    """A content for these boards (prefixes of omv.arch(), or "*") with its encodings: the full one, then patches."""

    boards: tuple[str, ...]
    image: Image
    facts: ModelFacts | None  # of a model
    encodings: tuple[Encoded, ...]
    findings: tuple[Finding, ...]  # warnings
    golden: GoldenFacts | None = None
    kind: Literal["model", "agent"] = "model"
    version: str | None = None  # of an agent

    @property
    def full(self) -> Encoded:
        """The encoding that every camera can use."""
        return self.encodings[0]

    @property
    def patches(self) -> tuple[Encoded, ...]:
        """Those that need their base, the smallest first."""
        return self.encodings[1:]


def pack(
    bundle: Bundle,
    boards: Sequence[str],
    bases: Iterable[bytes] = (),
    golden: Golden | None = None,
    tolerance: float = TOLERANCE,
) -> Packed:
    """The bundle's content and its encodings.

    `bases` are contents that cameras run now: a patch on each is offered where it saves a fifth or more. The
    content itself may be among them: then the patch is next to nothing, as when only the threshold changes.
    With `golden` each camera tries these frames first, and goes back when an output is further off than `tolerance`.
    Raises ModelError, PreflightError or ReleaseError.
    """
    if not boards:
        raise ReleaseError('Name the boards that the release is for, or "*" for any.')
    model = read_model(bundle.model)
    frames = build_golden(golden) if golden else None
    facts = GoldenFacts(frames=len(golden.frames), tolerance=tolerance) if golden else None
    check_golden(frames, facts, model, len(bundle.labels))
    image = build_content(bundle.model, bundle.labels, frames)
    findings = judge(model, bundle.labels, board_profiles.covered(boards), len(image.data))
    full = cut("deflate", deflate(image.data))
    made = patches(image.data, bases, below=PATCH_WORTH * full.size)
    return Packed(
        boards=tuple(boards),
        image=image,
        facts=facts_of(model, bundle.labels),
        encodings=(full, *made),
        findings=tuple(findings),
        golden=facts,
    )


def repack(content: bytes, manifest: Manifest, bases: Iterable[bytes] = ()) -> Packed:
    """A content that was released before, for the same boards, to be released again. `bases`: see `pack`."""
    image = read_image(content)
    model, labels = read_content(image)
    facts = read_model(model)
    findings = judge(facts, labels, board_profiles.covered(manifest.boards), len(content))
    full = cut("deflate", deflate(content))
    return Packed(
        boards=tuple(manifest.boards),
        image=image,
        facts=facts_of(facts, labels),
        encodings=(full, *patches(content, bases, below=PATCH_WORTH * full.size)),
        findings=tuple(findings),
        golden=manifest.golden,
    )


def judge(model: Model, labels: Sequence[str], profiles: Sequence[BoardProfile], size: int) -> list[Finding]:
    """The warnings of every board about a content of `size` bytes, each once; PreflightError when one refuses."""
    findings = dict.fromkeys(
        finding for profile in profiles for finding in check(model, labels, profile, content_bytes=size)
    )
    if refused := refusals(list(findings)):
        raise PreflightError(refused)
    return list(findings)


def patches(content: bytes, bases: Iterable[bytes], *, below: float) -> list[Encoded]:
    """Patches on these contents that have fewer bytes than `below`, the smallest first."""
    distinct = {hashlib.sha256(base).hexdigest(): base for base in bases}
    made: dict[bytes, Encoded] = {}  # by their bytes: encodings are known by the digest of these
    for digest, base in distinct.items():
        data = make_patch(base, content)
        if data in made:
            data = make_patch(base, content, variant=len(made))
        if len(data) < below and data not in made:
            made[data] = cut("patch", data, digest)
    return sorted(made.values(), key=lambda encoded: encoded.size)[:_PATCHES]
