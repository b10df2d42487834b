"""Releases, their bytes, the keys that may sign them, and what of them the broker holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from fleetd.domain.records import KeyRing, Release, SigningKey, StoredEncoding
from fleetd.errors import UnknownReleaseError
from fleetd.store.tables import encodings, key_records, published, releases, signing_keys

# The manifest's bytes are read only when asked for.
_SELECT = sa.select(*[column for column in releases.c if column.name != "manifest"])


class SqlReleases:
    """Implements `ports.Releases` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, release: Release, manifest: bytes, encodings_: Sequence[StoredEncoding]) -> None:
        """Stores a release; a ConflictError leaves the transaction when its id or sequence is taken."""
        row = {name: getattr(release, name) for name in Release.__dataclass_fields__}
        row["labels"] = list(release.labels)
        self._connection.execute(sa.insert(releases).values(**row, manifest=manifest))
        self._connection.execute(
            sa.insert(encodings),
            [
                {
                    "release_id": release.id,
                    "sha256": one.sha256,
                    "kind": one.kind,
                    "base": one.base,
                    "size": one.size,
                    "data": one.data,
                }
                for one in encodings_
            ],
        )

    def get(self, release_id: str) -> Release | None:
        """The release with that id."""
        row = self._connection.execute(_SELECT.where(releases.c.id == release_id)).one_or_none()
        return None if row is None else _release(row)

    def all(self) -> list[Release]:
        """All releases, newest sequence first within each kind."""
        order = (releases.c.kind, releases.c.epoch.desc(), releases.c.sequence.desc())
        return [_release(row) for row in self._connection.execute(_SELECT.order_by(*order))]

    def manifest(self, release_id: str) -> bytes:
        """The signed manifest exactly as it came, or UnknownReleaseError."""
        query = sa.select(releases.c.manifest).where(releases.c.id == release_id)
        found = self._connection.execute(query).scalar()
        if found is None:
            raise UnknownReleaseError(release=release_id)
        return bytes(found)

    def encodings(self, release_id: str) -> list[StoredEncoding]:
        """All encodings with their bytes, smallest first."""
        query = sa.select(encodings).where(encodings.c.release_id == release_id).order_by(encodings.c.size)
        return [_encoding(row) for row in self._connection.execute(query)]

    def encoding(self, release_id: str, sha256: str) -> StoredEncoding | None:
        """One encoding with its bytes."""
        mine = (encodings.c.release_id == release_id, encodings.c.sha256 == sha256)
        row = self._connection.execute(sa.select(encodings).where(*mine)).one_or_none()
        return None if row is None else _encoding(row)

    def highest(self, kind: str) -> tuple[int, int]:
        """The highest (epoch, sequence) of that kind, at least the present epoch with sequence 0."""
        query = (
            sa.select(releases.c.epoch, releases.c.sequence)
            .where(releases.c.kind == kind)
            .order_by(releases.c.epoch.desc(), releases.c.sequence.desc())
            .limit(1)
        )
        row = self._connection.execute(query).one_or_none()
        first = (self.ring().epoch, 0)
        return first if row is None else max(first, (int(row.epoch), int(row.sequence)))

    def remove(self, release_id: str) -> None:
        """Deletes a release with its encodings; a ConflictError leaves the transaction while rollouts name it."""
        self._connection.execute(sa.delete(releases).where(releases.c.id == release_id))

    def keys(self) -> list[SigningKey]:
        """All keys by name, revoked ones too."""
        query = sa.select(signing_keys).order_by(signing_keys.c.name, signing_keys.c.key_id)
        return [SigningKey(**row._mapping) for row in self._connection.execute(query)]

    def add_key(self, key: SigningKey) -> None:
        """Stores a key; a ConflictError leaves the transaction when it is known already."""
        row = {name: getattr(key, name) for name in SigningKey.__dataclass_fields__}
        self._connection.execute(sa.insert(signing_keys).values(**row))

    def revoke_key(self, key_id: str, now: float) -> bool:
        """Ends a key; False when there is none of that id in force."""
        in_force = (signing_keys.c.key_id == key_id, signing_keys.c.revoked_at.is_(None))
        done = self._connection.execute(sa.update(signing_keys).where(*in_force).values(revoked_at=now))
        return done.rowcount == 1

    def ring(self) -> KeyRing:
        """What cameras are to trust: the newest key record, or before the first one the keys in force."""
        query = sa.select(key_records).order_by(key_records.c.serial.desc()).limit(1)
        row = self._connection.execute(query).one_or_none()
        if row is not None:
            return KeyRing(row.serial, row.epoch, tuple(row.keys), tuple(row.recovery))
        in_force = sa.select(signing_keys.c.public).where(signing_keys.c.revoked_at.is_(None))
        return KeyRing(0, 1, tuple(sorted(self._connection.execute(in_force).scalars())), ())

    def add_record(self, ring: KeyRing, record: bytes, signed_by: str, by: str, now: float) -> None:
        """Stores a key record; a ConflictError leaves the transaction when its serial number is taken."""
        self._connection.execute(
            sa.insert(key_records).values(
                serial=ring.serial,
                epoch=ring.epoch,
                record=record,
                keys=list(ring.keys),
                recovery=list(ring.recovery),
                signed_by=signed_by,
                added_at=now,
                added_by=by,
            )
        )

    def records(self) -> Mapping[int, bytes]:
        """Key records by serial number, exactly as they were signed."""
        rows = self._connection.execute(sa.select(key_records.c.serial, key_records.c.record))
        return {row.serial: bytes(row.record) for row in rows}

    def published(self) -> Mapping[str, str]:
        """For each release with anything retained at the broker, the session in which it was published."""
        rows = self._connection.execute(sa.select(published.c.release_id, published.c.instance))
        return {row.release_id: row.instance for row in rows}

    def mark_published(self, release_id: str, instance: str, now: float) -> None:
        """Notes that the release's manifest and blocks were published in that session."""
        values = {"instance": instance, "published_at": now}
        mine = published.c.release_id == release_id
        if self._connection.execute(sa.update(published).where(mine).values(values)).rowcount == 0:
            self._connection.execute(sa.insert(published).values(release_id=release_id, **values))

    def forget_published(self, release_id: str) -> None:
        """Notes that nothing of the release is retained any more."""
        self._connection.execute(sa.delete(published).where(published.c.release_id == release_id))


def _release(row: sa.Row[Any]) -> Release:
    facts = dict(row._mapping)
    return Release(**{**facts, "labels": tuple(facts["labels"])})


def _encoding(row: sa.Row[Any]) -> StoredEncoding:
    return StoredEncoding(
        sha256=row.sha256, kind=row.kind, base=row.base, size=row.size, data=bytes(row.data)
    )
