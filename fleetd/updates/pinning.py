"""Pins: the one release that rollouts may bring to a camera."""

from fleetd.domain import assignment as lifecycle
from fleetd.errors import InvalidError, UnknownCameraError
from fleetd.ports import Clock, Store
from fleetd.updates.changes import end
from fleetd.updates.releases import known_release


class Pinning:
    """The part of the update service about pins."""

    _store: Store
    _clock: Clock

    def pin(self, camera: str, release_id: str | None, *, actor: str) -> str:
        """Keeps a camera at a release, what it runs unless another is named; answers which. What else is on its way
        to it is taken back.
        """
        now = self._clock()
        with self._store.transaction() as work:
            found = work.cameras.get(camera)
            if found is None:
                raise UnknownCameraError(camera=camera)
            chosen = release_id or found.release_id
            if chosen is None:
                raise InvalidError(
                    f"{camera} has not said what it runs. Nothing was changed; name the release to pin it to.",
                    camera=camera,
                )
            if release_id is not None:
                known_release(work, release_id)
            work.cameras.set_pin(found.id, chosen)
            for one in work.rollouts.open_assignments(found.id):
                if one.release_id != chosen:
                    end(work, one, lifecycle.CANCELLED, "pinned", now)
            work.access.record(actor, "camera.pin", camera, {"release": chosen}, now)
        return chosen

    def unpin(self, camera: str, *, actor: str) -> None:
        """Lets rollouts bring the camera anything again."""
        now = self._clock()
        with self._store.transaction() as work:
            found = work.cameras.get(camera)
            if found is None:
                raise UnknownCameraError(camera=camera)
            if found.pinned is not None:
                work.cameras.set_pin(found.id, None)
                work.access.record(actor, "camera.unpin", camera, {"release": found.pinned}, now)
