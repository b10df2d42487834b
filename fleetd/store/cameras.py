"""Cameras: enrolment, tags and reported state."""

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any

import sqlalchemy as sa

from fleetd.domain.records import Camera
from fleetd.store.changes import mark, mark_changed
from fleetd.store.tables import camera_state, camera_tags, cameras, departed, desired, unknown_cameras

_STATE = [column for column in camera_state.c if column.name not in ("camera_id", "status_seq")]
_OWN = [column for column in cameras.c if column.name not in ("secret_hash", "fresh_key", "mqtt_hash")]
_SELECT = sa.select(*_OWN, *_STATE).select_from(
    cameras.outerjoin(camera_state, camera_state.c.camera_id == cameras.c.id)
)
_RENAMED = {column.name for column in _STATE}
_NAMES_AT_ONCE = 500
_REMOVALS = "cameras_removed"
ACCOUNTS = "accounts_changed"  # marks every change of who may connect to the broker


def removals(connection: sa.Connection) -> str | None:
    """Changes when a camera or a boot is gone. Until then what is remembered by a number holds."""
    return mark(connection, _REMOVALS)


def note_removal(connection: sa.Connection) -> None:
    """Says that a camera or a boot is gone, to whoever remembers its number."""
    mark_changed(connection, _REMOVALS)


class SqlCameras:
    """Implements `ports.Cameras` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, name: str, secret_hash: str | None, now: float, *, mqtt_hash: str | None = None) -> Camera:
        """Enrols a camera; a ConflictError leaves the transaction when the name is taken."""
        row = self._connection.execute(
            sa.insert(cameras)
            .values(name=name, created_at=now, secret_hash=secret_hash, mqtt_hash=mqtt_hash)
            .returning(cameras.c.id)
        )
        mark_changed(self._connection, ACCOUNTS)
        camera_id = int(row.scalar_one())
        self._connection.execute(sa.insert(camera_state).values(camera_id=camera_id))
        self.forget_unknown(name)
        return Camera(id=camera_id, name=name, created_at=now)

    def get(self, name: str) -> Camera | None:
        """The camera with that name."""
        row = self._connection.execute(_SELECT.where(cameras.c.name == name)).one_or_none()
        if row is None:
            return None
        tags = self._connection.execute(sa.select(camera_tags.c.tag).where(camera_tags.c.camera_id == row.id))
        return _camera(row, frozenset(tags.scalars()))

    def all(self) -> list[Camera]:
        """All cameras by name."""
        tags: dict[int, set[str]] = {}
        for camera_id, tag in self._connection.execute(sa.select(camera_tags.c.camera_id, camera_tags.c.tag)):
            tags.setdefault(camera_id, set()).add(tag)
        rows = self._connection.execute(_SELECT.order_by(cameras.c.name))
        return [_camera(row, frozenset(tags.get(row.id, ()))) for row in rows]

    def remove(self, camera_id: int, now: float) -> None:
        """Deletes the camera with everything that hangs on it, and notes that the broker has to forget it too."""
        mine = cameras.c.id == camera_id
        name = self._connection.execute(sa.select(cameras.c.name).where(mine)).scalar()
        self._connection.execute(sa.delete(cameras).where(mine))
        if name is not None:
            self._connection.execute(sa.delete(departed).where(departed.c.name == name))
            self._connection.execute(sa.insert(departed).values(name=name, at=now))
        mark_changed(self._connection, _REMOVALS)
        mark_changed(self._connection, ACCOUNTS)

    def departed(self, limit: int) -> list[str]:
        """Names of removed cameras of which the broker still retains something."""
        query = sa.select(departed.c.name).order_by(departed.c.at, departed.c.name).limit(limit)
        return list(self._connection.execute(query).scalars())

    def forget_departed(self, names: Collection[str]) -> None:
        """The broker retains nothing of these any more."""
        self._connection.execute(sa.delete(departed).where(departed.c.name.in_(names)))

    def set_secret(self, camera_id: int, secret_hash: str, mqtt_hash: str) -> None:
        """Replaces the credential's hashes. A revoked camera is so no more."""
        self._connection.execute(
            sa.update(cameras)
            .where(cameras.c.id == camera_id)
            .values(secret_hash=secret_hash, mqtt_hash=mqtt_hash, revoked_at=None)
        )
        mark_changed(self._connection, _REMOVALS)
        mark_changed(self._connection, ACCOUNTS)

    def revoke(self, camera_id: int, now: float) -> None:
        """Takes the credential away: nothing that holds it is this camera any more."""
        self._connection.execute(
            sa.update(cameras)
            .where(cameras.c.id == camera_id)
            .values(secret_hash=None, mqtt_hash=None, revoked_at=now)
        )
        mark_changed(self._connection, _REMOVALS)
        mark_changed(self._connection, ACCOUNTS)

    def set_fresh_key(self, name: str, key: str) -> None:
        """Gives the camera another key for answers to its nonces."""
        self._connection.execute(sa.update(cameras).where(cameras.c.name == name).values(fresh_key=key))

    def fresh_keys(self, names: Iterable[str]) -> Mapping[str, tuple[str, int]]:
        """By name, for those that have one: the key and the generation of the newest desired state (0: none)."""
        found = {}
        left = iter(names)
        while chunk := list(islice(left, _NAMES_AT_ONCE)):
            query = (
                sa.select(cameras.c.name, cameras.c.fresh_key, desired.c.generation)
                .select_from(cameras.outerjoin(desired, desired.c.camera_id == cameras.c.id))
                .where(cameras.c.name.in_(chunk), cameras.c.fresh_key.is_not(None))
            )
            for row in self._connection.execute(query):
                found[row.name] = row.fresh_key, row.generation or 0
        return found

    def set_tags(self, camera_id: int, tags: frozenset[str]) -> None:
        """Replaces the camera's tags."""
        self._connection.execute(sa.delete(camera_tags).where(camera_tags.c.camera_id == camera_id))
        if tags:
            rows = [{"camera_id": camera_id, "tag": tag} for tag in sorted(tags)]
            self._connection.execute(sa.insert(camera_tags), rows)

    def set_note(self, camera_id: int, note: str) -> None:
        """Replaces the operator's note."""
        self._connection.execute(sa.update(cameras).where(cameras.c.id == camera_id).values(note=note))

    def set_site(self, camera_id: int, site: str) -> None:
        """Replaces the camera's site."""
        self._connection.execute(sa.update(cameras).where(cameras.c.id == camera_id).values(site=site))

    def set_pin(self, camera_id: int, release_id: str | None) -> None:
        """Replaces the release that the camera is pinned to; None: it is not."""
        self._connection.execute(
            sa.update(cameras).where(cameras.c.id == camera_id).values(pinned=release_id)
        )

    def set_led(self, camera_id: int, color: str, pattern: str, reason: str | None, at: float) -> None:
        """Notes the LED's state unless a newer one is known."""
        table = camera_state
        newer = sa.or_(table.c.led_at.is_(None), table.c.led_at <= at)
        self._connection.execute(
            sa.update(table)
            .where(table.c.camera_id == camera_id, newer)
            .values(led_color=color, led_pattern=pattern, led_reason=reason, led_at=at)
        )

    def unknown(self, limit: int) -> list[Mapping[str, Any]]:
        """Names that publish without being enrolled, latest first."""
        query = sa.select(unknown_cameras).order_by(unknown_cameras.c.last_seen.desc()).limit(limit)
        return [row._asdict() for row in self._connection.execute(query)]

    def forget_unknown(self, name: str) -> None:
        """Takes a name off the list of unknown ones."""
        self._connection.execute(sa.delete(unknown_cameras).where(unknown_cameras.c.name == name))


def _camera(row: sa.Row[Any], tags: frozenset[str]) -> Camera:
    state = {name: value for name, value in row._mapping.items() if name in _RENAMED}
    state["capabilities"] = tuple(state["capabilities"] or ())
    state["problems"] = tuple(state["problems"] or ())
    state["connected"] = bool(state["connected"])
    own = {column.name: row._mapping[column.name] for column in _OWN}
    return Camera(**own, tags=tags, **state)
