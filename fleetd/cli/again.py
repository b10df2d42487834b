"""The content of an older release once more, as the next release: going back without the old file.

Nothing is signed on fleetd's word. The old manifest must carry the signature of the key that is used now, and the
content must be the one that it names: so nothing new can be slipped under the operator's signature.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.session import Session
from fleetd.cli.text import safe
from fleetd.protocol import limits
from fleetd.protocol.manifest import Manifest

if TYPE_CHECKING:  # signing takes a library that help does not need
    from fleetd.bundles.signing import OperatorKey


def sign_again(
    session: Session, release_id: str, key: "OperatorKey", *, from_: Sequence[str]
) -> dict[str, Any]:
    """Uploads the content of a release as the next one, with patches for cameras that run the releases `from_`."""
    from fleetd.bundles.packing import repack  # noqa: PLC0415  # see above
    from fleetd.bundles.release import draft_release  # noqa: PLC0415

    manifest, content = _checked(session, release_id, key)
    bases = [session.api.download("releases", one, "content", limit=limits.CONTENT_BYTES) for one in from_]
    coming = session.api.get("releases", "next", kind=manifest.kind)
    draft = draft_release(
        repack(content, manifest, bases),
        release_id=str(coming["release"]),
        name=manifest.name,
        version=manifest.version,
        epoch=int(coming["epoch"]),
        sequence=int(coming["sequence"]),
        created=int(session.now()),
        threshold=manifest.threshold,
    )
    built = draft.sign(key)
    release: dict[str, Any] = session.api.upload(built.blob, [one.data for one in built.encodings])
    session.out.warn(f"Signed the content of {safe(release_id)} again, as {safe(release['id'])}.")
    return release


def _checked(session: Session, release_id: str, key: "OperatorKey") -> tuple[Manifest, bytes]:
    """The manifest and the content of a release that this very key has signed."""
    from fleetd.bundles.signing import verify  # noqa: PLC0415  # see above
    from fleetd.errors import FleetError  # noqa: PLC0415

    blob = session.api.download("releases", release_id, "manifest", limit=limits.MANIFEST_BYTES)
    try:
        manifest = verify(blob, [key.public])
    except FleetError as error:
        raise CliError(
            f"{safe(release_id)} was not signed with this key, so it is not signed again: {error.message}",
            "Push the old model from its file, or use the key that signed it (`--key`).",
            exit_code=UNUSABLE,
        ) from error
    content = session.api.download("releases", release_id, "content", limit=limits.CONTENT_BYTES)
    if hashlib.sha256(content).hexdigest() != manifest.content.sha256:
        raise CliError(f"What fleetd has of {safe(release_id)} is not what was signed. Nothing was signed.")
    return manifest, content
