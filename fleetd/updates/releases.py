"""Uploaded releases: what is kept of them, whether they may still be used, and contents to try patches on."""

from collections.abc import Iterator, Mapping

from fleetd.bundles.encodings import cut
from fleetd.bundles.release import CheckedRelease
from fleetd.domain.records import Release
from fleetd.errors import InvalidError, UnknownReleaseError
from fleetd.ports import Store, UnitOfWork
from fleetd.protocol.manifest import HEADER_BYTES, Manifest


def described(manifest: bytes) -> Manifest:
    """What a stored manifest says; its signature was checked before it was stored."""
    return Manifest.model_validate_json(manifest[HEADER_BYTES:])


def known_release(work: UnitOfWork, release_id: str) -> Release:
    """The release, or UnknownReleaseError."""
    release = work.releases.get(release_id)
    if release is None:
        raise UnknownReleaseError(release=release_id)
    return release


def check_key(work: UnitOfWork, release: Release) -> None:
    """Refuses a release that cameras would refuse for its key or its epoch."""
    keys = work.releases.keys()
    if not any(key.key_id == release.key_id and key.revoked_at is None for key in keys):
        raise InvalidError(
            f"{release.id} was signed with the key {release.key_id}, which is not accepted any more. "
            "Nothing was changed; sign the content again with another key.",
            release=release.id,
            key=release.key_id,
        )
    epoch = work.releases.ring().epoch
    if release.epoch != epoch:
        raise InvalidError(
            f"{release.id} was made in key epoch {release.epoch}, cameras are in epoch {epoch} and would refuse it. "
            "Nothing was changed; push the content again, which makes a release of this epoch.",
            release=release.id,
            epoch=epoch,
        )


def check_not_expired(manifest: Manifest, now: float) -> None:
    """Refuses a release that cameras with a clock would refuse."""
    if manifest.expires is not None and manifest.expires <= now:
        raise InvalidError(
            f"{manifest.release} has expired; cameras would refuse it. Nothing was changed; sign it again.",
            release=manifest.release,
            expires=manifest.expires,
        )


def as_release(checked: CheckedRelease, now: float, actor: str) -> Release:
    """What is kept of an upload that was checked."""
    manifest = checked.manifest
    return Release(
        id=manifest.release,
        kind=manifest.kind,
        name=manifest.name,
        version=manifest.version,
        epoch=manifest.epoch,
        sequence=manifest.sequence,
        key_id=checked.key_id,
        digest=checked.digest,
        content_sha256=manifest.content.sha256,
        content_size=manifest.content.size,
        labels=checked.labels,
        uploaded_at=now,
        uploaded_by=actor,
    )


class StoredContents(Mapping[str, bytes]):
    """Looks contents up in the store, one at a time and only when asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, sha256: str) -> bytes:
        with self._store.reading() as work:
            release = next((one for one in work.releases.all() if one.content_sha256 == sha256), None)
            stored = [] if release is None else work.releases.encodings(release.id)
        for one in stored:
            if release is not None and one.kind == "deflate":
                return cut("deflate", one.data).decode(release.content_size)
        raise KeyError(sha256)

    def __iter__(self) -> Iterator[str]:
        with self._store.reading() as work:
            return iter({one.content_sha256 for one in work.releases.all()})

    def __len__(self) -> int:
        return sum(1 for _ in self)
