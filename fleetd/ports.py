"""What services need from the outside, as small protocols. Adapters implement them; tests use real ones.

Every repository works inside the transaction of the unit of work it belongs to. Writes that depend on an old
value say so and answer whether they happened.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from fleetd.domain.assignment import Watched
from fleetd.domain.halting import Dark
from fleetd.domain.health import Watch
from fleetd.domain.records import (
    Assignment,
    AssignmentState,
    Camera,
    DesiredState,
    KeyRing,
    Release,
    Rollout,
    RolloutSettings,
    RolloutState,
    Sighting,
    SigningKey,
    StoredEncoding,
    Token,
    UpdateReport,
)
from fleetd.domain.rollout import StateCount

Clock = Callable[[], float]


class Cameras(Protocol):
    """Enrolled cameras with their reported state."""

    def add(self, name: str, secret_hash: str | None, now: float) -> Camera: ...
    def get(self, name: str) -> Camera | None: ...
    def all(self) -> list[Camera]: ...
    def remove(self, camera_id: int) -> None: ...
    def set_secret(self, camera_id: int, secret_hash: str) -> None: ...
    def set_tags(self, camera_id: int, tags: frozenset[str]) -> None: ...
    def set_note(self, camera_id: int, note: str) -> None: ...
    def set_led(self, camera_id: int, color: str, pattern: str, reason: str | None, at: float) -> None: ...
    def unknown(self, limit: int) -> list[Mapping[str, Any]]: ...
    def forget_unknown(self, name: str) -> None: ...


class History(Protocol):
    """What cameras sent, newest first, for reading. `camera` and the times (Unix seconds) narrow it."""

    def results(
        self, *, camera: str | None, since: float | None, until: float | None, label: str | None, limit: int
    ) -> list[Mapping[str, Any]]: ...
    def telemetry(
        self, *, camera: str | None, since: float | None, until: float | None, limit: int
    ) -> list[Mapping[str, Any]]: ...
    def events(
        self, *, camera: str | None, since: float | None, until: float | None, limit: int
    ) -> list[Mapping[str, Any]]: ...
    def sightings(self, *, camera: str | None, since: float | None, limit: int) -> list[Sighting]: ...
    def add_sighting(
        self, camera_id: int, at: float, color: str, pattern: str, source: str, reason: str | None
    ) -> None: ...
    def replies(self, *, command_id: str) -> list[Mapping[str, Any]]: ...
    def dead_letters(self, *, limit: int) -> list[Mapping[str, Any]]: ...
    def counts(self) -> Mapping[str, int]: ...
    def labels(self, *, camera: str | None, since: float) -> list[Mapping[str, Any]]: ...


class Releases(Protocol):
    """Signed releases with their encodings and the public keys that may sign."""

    def add(self, release: Release, manifest: bytes, encodings: Sequence[StoredEncoding]) -> None: ...
    def get(self, release_id: str) -> Release | None: ...
    def all(self) -> list[Release]: ...
    def manifest(self, release_id: str) -> bytes: ...
    def encodings(self, release_id: str) -> list[StoredEncoding]: ...
    def encoding(self, release_id: str, sha256: str) -> StoredEncoding | None: ...
    def highest(
        self, kind: str
    ) -> tuple[int, int]: ...  # (epoch, sequence); sequence 0 when the epoch has none
    def remove(self, release_id: str) -> None: ...
    def keys(self) -> list[SigningKey]: ...
    def add_key(self, key: SigningKey) -> None: ...
    def revoke_key(self, key_id: str, now: float) -> bool: ...
    def ring(self) -> KeyRing: ...
    def add_record(self, ring: KeyRing, record: bytes, signed_by: str, by: str, now: float) -> None: ...
    def records(self) -> Mapping[int, bytes]: ...  # key records by serial, exactly as signed
    def published(self) -> Mapping[str, str]: ...  # release id -> the broker session it was published in
    def mark_published(self, release_id: str, instance: str, now: float) -> None: ...
    def forget_published(self, release_id: str) -> None: ...


class Rollouts(Protocol):
    """Rollouts, their assignments, and what each camera should run."""

    def add(
        self,
        *,
        release_id: str,
        target: str,
        waves: Sequence[int],
        settings: RolloutSettings,
        created_by: str,
        now: float,
        members: Iterable[tuple[int, int]],
    ) -> Rollout: ...  # members: (camera id, wave)
    def get(self, rollout_id: int) -> Rollout | None: ...
    def all(self, states: Collection[RolloutState] | None = None) -> list[Rollout]: ...
    def change(
        self,
        rollout_id: int,
        *,
        was: RolloutState,
        state: RolloutState,
        wave: int,
        reason: str | None,
        finished_at: float | None,
        settings: RolloutSettings | None = None,
    ) -> bool: ...
    def assignments(self, rollout_id: int) -> list[Assignment]: ...
    def open_assignments(self, camera_id: int | None = None) -> list[Assignment]: ...
    def open_releases(self) -> frozenset[str]: ...  # releases that open assignments need
    def pending(self, rollout_id: int, up_to_wave: int, limit: int) -> list[Assignment]: ...
    def watched(self, camera_ids: Collection[int] | None = None) -> list[Watched]: ...  # open and offered
    def counts(self, rollout_id: int) -> list[StateCount]: ...
    def reverted(self, release_id: str) -> frozenset[int]: ...  # cameras that reverted it in any rollout
    def advance(
        self,
        assignment: Assignment,
        *,
        state: AssignmentState,
        now: float,
        reason: str | None = None,
        detail: str | None = None,
        generation: int | None = None,
        blocks: tuple[int, int] | None = None,
        deadline_at: float | None = None,
    ) -> bool: ...  # False when the stored state is no longer assignment.state
    def reports_after(self, report_id: int, limit: int) -> list[UpdateReport]: ...
    def desired(self, camera_id: int) -> DesiredState | None: ...
    def all_desired(self, *, unsent_only: bool) -> list[DesiredState]: ...
    def set_desired(
        self,
        camera_id: int,
        *,
        release_id: str | None,
        digest: str | None,
        deadline: float | None,
        now: float,
    ) -> DesiredState: ...  # keeps config, raises generation by one
    def set_config(self, camera_id: int, config: Mapping[str, Any], now: float) -> DesiredState: ...
    def mark_sent(self, camera_id: int, generation: int) -> None: ...


class Health(Protocol):
    """What cameras saw before and after a release, for judging it. Everything it reads is bounded."""

    def settled_at(self, rollout_id: int, wave: int) -> float | None: ...  # the last outcome up to that wave
    def release_before(self, rollout_id: int) -> str | None: ...  # what its first camera ran
    def dark(self, rollout_id: int, release_id: str, *, silence_s: float, now: float) -> Dark: ...
    def watches(
        self, rollout_id: int, release_id: str, *, bucket_s: float, threshold: float, now: float
    ) -> tuple[list[Watch], list[Watch]]: ...  # canaries, controls


class Commands(Protocol):
    """Commands to cameras; each is sent once."""

    def add(
        self,
        command_id: str,
        camera_id: int,
        name: str,
        args: Mapping[str, Any],
        ttl_s: int,
        by: str,
        now: float,
    ) -> None: ...
    def get(self, command_id: str) -> Mapping[str, Any] | None: ...
    def unsent(self, now: float) -> list[Mapping[str, Any]]: ...
    def mark_sent(self, command_id: str, now: float) -> None: ...


class Access(Protocol):
    """API tokens and the audit trail."""

    def add_token(self, name: str, role: str, token_hash: str, now: float) -> Token: ...
    def token_by_hash(self, token_hash: str) -> Token | None: ...
    def tokens(self) -> list[Token]: ...
    def revoke_token(self, name: str, now: float) -> bool: ...
    def record(self, actor: str, action: str, subject: str, facts: Mapping[str, Any], now: float) -> None: ...
    def entries(self, limit: int) -> list[Mapping[str, Any]]: ...
    def get_fact(self, name: str) -> str | None: ...
    def set_fact(self, name: str, value: str) -> None: ...


class UnitOfWork(Protocol):
    """One transaction. Leaving its `with` block commits; an exception rolls everything back."""

    @property
    def cameras(self) -> Cameras: ...
    @property
    def history(self) -> History: ...
    @property
    def releases(self) -> Releases: ...
    @property
    def rollouts(self) -> Rollouts: ...
    @property
    def health(self) -> Health: ...
    @property
    def commands(self) -> Commands: ...
    @property
    def access(self) -> Access: ...


class Store(Protocol):
    """Where everything is kept."""

    def transaction(self) -> AbstractContextManager[UnitOfWork]: ...
    def reading(self) -> AbstractContextManager[UnitOfWork]: ...


class Inbound(NamedTuple):
    """One message as the broker handed it over, with what is needed to acknowledge it."""

    topic: str
    payload: bytes
    retained: bool
    received_at: float
    connection: object = None  # the connection it came on; packet ids mean nothing on another
    mid: int = 0  # 0: nothing to acknowledge


class Inflow(Protocol):
    """What landing needs from the broker."""

    def acknowledge(self, batch: Sequence[Inbound]) -> None: ...
    def publish_once(self, topic: str, payload: bytes) -> None: ...  # QoS 0


class Publisher(Protocol):
    """Sending to the broker at QoS 1."""

    def publish(
        self, topic: str, payload: bytes, *, retain: bool
    ) -> None: ...  # queues; UnavailableError when down
    def flush(self, timeout: float) -> bool: ...  # True once the broker has acknowledged all of it
