"""What each camera should run: its desired state, a generation for every change."""

import json
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from fleetd.domain.records import DesiredState
from fleetd.errors import ConflictError, InvalidError, UnknownCameraError
from fleetd.store.tables import camera_state, cameras, desired

CONFIG_CHARS: Final = 3000  # leaves room for the rest of a `down/desired` of 4 KB
GENERATION_CEILING: Final = 2**50  # a camera that claims more is not believed

_DESIRED = sa.select(desired, cameras.c.name.label("camera")).join(
    cameras, cameras.c.id == desired.c.camera_id
)
# A camera with what is desired of it, if anything is, and the generation that it has reported.
_KNOWN = sa.select(
    cameras.c.name.label("camera"), camera_state.c.generation.label("reported"), desired
).select_from(
    cameras.outerjoin(camera_state, camera_state.c.camera_id == cameras.c.id).outerjoin(
        desired, desired.c.camera_id == cameras.c.id
    )
)


class SqlDesired:
    """The part of `ports.Rollouts` about desired states."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def desired(self, camera_id: int) -> DesiredState | None:
        """What the camera should run, if anything was ever asked of it."""
        row = self._connection.execute(_DESIRED.where(desired.c.camera_id == camera_id)).one_or_none()
        return None if row is None else _desired(row)

    def all_desired(self, *, unsent_only: bool) -> list[DesiredState]:
        """The desired states of all cameras, or of those where the broker has an older one."""
        query = _DESIRED.order_by(desired.c.camera_id)
        if unsent_only:
            query = query.where(desired.c.sent_generation < desired.c.generation)
        return [_desired(row) for row in self._connection.execute(query)]

    def set_desired(
        self,
        camera_id: int,
        *,
        release_id: str | None,
        digest: str | None,
        deadline: float | None,
        now: float,
    ) -> DesiredState:
        """Asks the camera to run a release (None: to stay as it is) as a new generation; its config stays."""
        return self._write_desired(
            camera_id, {"release_id": release_id, "digest": digest, "deadline": deadline}, now
        )

    def set_config(self, camera_id: int, config: Mapping[str, Any], now: float) -> DesiredState:
        """Gives the camera a configuration as a new generation; its release stays."""
        if len(json.dumps(dict(config))) > CONFIG_CHARS:
            raise InvalidError(
                f"The configuration is longer than {CONFIG_CHARS} characters of JSON. Nothing was changed."
            )
        return self._write_desired(camera_id, {"config": dict(config)}, now)

    def mark_sent(self, camera_id: int, generation: int) -> None:
        """Notes that the broker has that generation, unless it has a newer one already."""
        older = (desired.c.camera_id == camera_id, desired.c.sent_generation < generation)
        self._connection.execute(sa.update(desired).where(*older).values(sent_generation=generation))

    def _write_desired(self, camera_id: int, values: dict[str, Any], now: float) -> DesiredState:
        """A new generation, higher than any that the camera can have seen, an earlier life of its name included."""
        known = self._connection.execute(_KNOWN.where(cameras.c.id == camera_id)).one_or_none()
        if known is None:
            raise UnknownCameraError(camera_id=camera_id)
        reported = known.reported if known.reported and known.reported < GENERATION_CEILING else 0
        generation = max(known.generation or 0, reported) + 1
        new = {"config": {}, "sent_generation": 0, "release_id": None, "digest": None, "deadline": None}
        old = new if known.generation is None else {name: getattr(known, name) for name in new}
        row = {**old, **values, "generation": generation, "changed_at": now}
        if known.generation is None:
            self._connection.execute(sa.insert(desired).values(camera_id=camera_id, **row))
        else:
            guard = (desired.c.camera_id == camera_id, desired.c.generation == known.generation)
            changed = {**values, "generation": generation, "changed_at": now}
            if self._connection.execute(sa.update(desired).where(*guard).values(changed)).rowcount != 1:
                raise ConflictError(camera_id=camera_id)
        return DesiredState(camera_id=camera_id, camera=known.camera, **row)


def _desired(row: sa.Row[Any]) -> DesiredState:
    return DesiredState(**row._mapping)
