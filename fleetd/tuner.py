"""Settings of cameras that are already out there: which are wanted of whom. Cameras take them by themselves.

They travel in the desired state, so a camera that is away gets them when it comes back, and says in an event
(`config-refused`) what it did not take.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fleetd.domain.presence import PresenceRules, presence_of
from fleetd.domain.target import matches, parse_target
from fleetd.domain.tuning import NAMES, check_tuning, shown
from fleetd.errors import InvalidError, UnknownCameraError
from fleetd.ports import Clock, Store


@dataclass(frozen=True, slots=True)
class Wanted:
    """The settings wanted of a camera, secrets hidden; `generation` is what the camera has to report for them."""

    camera: str
    settings: Mapping[str, Any]
    generation: int | None
    reported: int | None


class Tuner:
    """The service around settings. `wake` is called when there is something to publish."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        rules: PresenceRules | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules or PresenceRules()
        self._wake = wake

    def wanted(self, name: str) -> Wanted:
        """What is wanted of a camera; whatever is not named stays as its own config.json says."""
        with self._store.reading() as work:
            camera = work.cameras.get(name)
            if camera is None:
                raise UnknownCameraError(camera=name)
            desired = work.rollouts.desired(camera.id)
        if desired is None:
            return Wanted(name, {}, None, camera.generation)
        return Wanted(name, shown(dict(desired.config)), desired.generation, camera.generation)

    def change(
        self, target: str, values: Mapping[str, Any], drop: Collection[str] = (), *, actor: str
    ) -> tuple[list[str], list[str]]:
        """Wants settings of the cameras a query names, and those in `drop` not any more.

        Answers the names of cameras for which that is new, and of those where it was so already.
        """
        check_tuning(dict(values))
        strange = sorted(set(drop) - set(NAMES))
        if strange or not (values or drop) or set(values) & set(drop):
            raise InvalidError(
                f"No such setting: {', '.join(strange)}. Known: {', '.join(NAMES)}. Nothing was changed."
                if strange
                else "Name at least one setting, each once. Nothing was changed."
            )
        query, now = parse_target(target), self._clock()
        changed, same = [], []
        with self._store.transaction() as work:
            for camera in work.cameras.all():
                if not matches(query, camera, presence_of(camera, now, self._rules)):
                    continue
                desired = work.rollouts.desired(camera.id)
                before = {} if desired is None else dict(desired.config)
                after = {name: value for name, value in {**before, **values}.items() if name not in drop}
                if after == before:
                    same.append(camera.name)
                else:
                    work.rollouts.set_config(camera.id, after, now)
                    changed.append(camera.name)
            if not changed and not same:
                raise InvalidError("The target names no camera. Nothing was changed.", target=target)
            if changed:
                facts = {"set": shown(dict(values)), "unset": sorted(drop), "cameras": changed}
                work.access.record(actor, "cameras.configure", target[:128], facts, now)
        if changed:
            self._wake()
        return changed, same
