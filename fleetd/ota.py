"""Updates: releases, the keys that may sign them, rollouts, and every camera's part in them.

Operators' wishes come in by method; `process` does what follows from cameras' reports and from the clock. A
transaction holds a change, the desired states that follow from it and the audit entries, and writes are
guarded by the old value: being killed anywhere repeats nothing, and two processes do not get in each other's
way. Publishing is not done here: `wake` says that there is something to publish.
"""

import hashlib
from collections.abc import Callable, Sequence

from fleetd.bundles.errors import ReleaseError
from fleetd.bundles.release import check_release
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import Release, StoredEncoding
from fleetd.errors import ConflictError, FleetError
from fleetd.logs import get_logger
from fleetd.ports import Clock, Store
from fleetd.updates.explaining import CameraExplanation, Explaining, Explanation
from fleetd.updates.pinning import Pinning
from fleetd.updates.progress import Progress
from fleetd.updates.releases import StoredContents, as_release, check_key, check_not_expired, known_release
from fleetd.updates.steering import RolloutPreview, RolloutView, Steering
from fleetd.updates.trust import Trust

__all__ = ["CameraExplanation", "Explanation", "Ota", "RolloutPreview", "RolloutView"]

log = get_logger(__name__)


class Ota(Trust, Steering, Pinning, Explaining):
    """The service around updates. `listening` says whether cameras can be heard right now."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
        *,
        rules: PresenceRules | None = None,
        listening: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(store, clock, wake)
        self._rules = rules or PresenceRules()
        self._progress = Progress(store, self._rules, listening)

    # -- releases --------------------------------------------------------------------------------------------

    def next_release(self, kind: str = "model") -> tuple[str, int, int]:
        """The id, epoch and sequence number for the next release of that kind, e.g. ("model-7", 1, 7)."""
        with self._store.reading() as work:
            epoch, sequence = work.releases.highest(kind)
            while True:
                sequence += 1
                release_id = f"{kind}-{sequence}" if epoch == 1 else f"{kind}-{epoch}.{sequence}"
                if work.releases.get(release_id) is None:
                    return release_id, epoch, sequence

    def add_release(self, manifest: bytes, encodings: Sequence[bytes], *, actor: str) -> Release:
        """Stores a signed release after checking all of it. The same upload again changes nothing."""
        now = self._clock()
        with self._store.reading() as work:
            keys = work.releases.keys()
        public = [bytes.fromhex(key.public) for key in keys if key.revoked_at is None]
        checked = check_release(manifest, encodings, public, contents=StoredContents(self._store))
        check_not_expired(checked.manifest, now)
        release = as_release(checked, now, actor)
        stored = [
            StoredEncoding(one.sha256, one.kind, one.base, one.size, one.data) for one in checked.encodings
        ]
        with self._store.transaction() as work:
            known = work.releases.get(release.id)
            if known is not None and known.digest == release.digest:
                return known
            highest = work.releases.highest(release.kind)
            if known is not None or (release.epoch, release.sequence) <= highest:
                raise ConflictError(
                    f"{release.id} (epoch {release.epoch}, sequence {release.sequence}) is not newer than what is "
                    f"here (epoch {highest[0]}, sequence {highest[1]}), or its id is taken. Nothing was changed; "
                    "sign it again as the next release.",
                    release=release.id,
                )
            check_key(work, release)
            work.releases.add(release, manifest, stored)
            facts = {"digest": release.digest, "key": release.key_id, "content": release.content_sha256}
            work.access.record(actor, "release.add", release.id, facts, now)
        log.info("release_added", release=release.id, actor=actor)
        return release

    def releases(self) -> list[Release]:
        """All releases."""
        with self._store.reading() as work:
            return work.releases.all()

    def release(self, release_id: str) -> Release:
        """One release, or UnknownReleaseError."""
        with self._store.reading() as work:
            return known_release(work, release_id)

    def manifest(self, release_id: str) -> bytes:
        """The signed manifest, byte for byte."""
        with self._store.reading() as work:
            return work.releases.manifest(release_id)

    def content(self, release_id: str) -> bytes:
        """What the release puts into a camera's slot, unpacked: up to 16 MB that are what its digest says."""
        sha256 = self.release(release_id).content_sha256
        try:
            content = StoredContents(self._store)[sha256]
        except (KeyError, ReleaseError):
            content = b""
        if hashlib.sha256(content).hexdigest() != sha256:
            log.error("content_damaged", release=release_id)
            raise FleetError(
                f"What is stored of {release_id} is damaged. Push the model again: that makes a new release.",
                release=release_id,
            )
        return content

    def process(self) -> bool:
        """Does one piece of what is due: reports, what cameras say of themselves, silence, waves.

        True when there was work, and there may be more.
        """
        try:
            worked = self._progress.step(self._clock())
        except ConflictError as error:  # whoever was quicker with the same piece wins
            log.info("update_changed_meanwhile", error=str(error))
            return False
        if worked:
            self._wake()
        return worked
