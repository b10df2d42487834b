"""The nouns that services, store and edges exchange. Frozen; times are Unix seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Camera:
    """One enrolled camera and what it last said of itself. `id` is internal, `name` is its identity."""

    id: int
    name: str
    created_at: float
    tags: frozenset[str] = frozenset()
    note: str = ""
    site: str = ""  # a place whose cameras share a link
    pinned: str | None = None  # the one release that rollouts may bring to it
    revoked_at: float | None = None  # its credential was taken away, e.g. because it was stolen
    seen_at: float | None = None
    connected: bool = False
    boot: str | None = None
    status_at: float | None = None
    reset_cause: str | None = None
    agent: str | None = None
    firmware: str | None = None
    board: str | None = None
    uid: str | None = None
    generation: int | None = None
    release_id: str | None = None
    release_digest: str | None = None
    release_sequence: int | None = None
    release_epoch: int | None = None
    trial: str | None = None
    key_serial: int | None = None  # the key record that it goes by
    key_epoch: int | None = None
    storage: Mapping[str, Any] | None = None
    network: Mapping[str, Any] | None = None
    capabilities: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    led_color: str | None = None
    led_pattern: str | None = None
    led_reason: str | None = None
    led_at: float | None = None

    @property
    def asleep_until(self) -> float | None:
        """When a camera that went to sleep wanted to be back."""
        seconds = (self.network or {}).get("asleep_s")
        return None if seconds is None or self.status_at is None else self.status_at + float(seconds)


@dataclass(frozen=True, slots=True)
class MqttUser:
    """Somebody, or a program, who may read everything over MQTT and publish nothing."""

    name: str
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class Roll:
    """All accounts at the broker at one moment, by name, each with its password's hash.

    `version` changes with any of them.
    """

    version: str | None
    cameras: Mapping[str, str] = field(default_factory=dict, repr=False)
    people: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Release:
    """A signed bundle. `digest` names the manifest's bytes, `content_sha256` what lies in a slot."""

    id: str
    kind: str
    name: str
    version: str
    epoch: int
    sequence: int
    key_id: str
    digest: str
    content_sha256: str
    content_size: int
    labels: tuple[str, ...]
    uploaded_at: float
    uploaded_by: str


@dataclass(frozen=True, slots=True)
class StoredEncoding:
    """One encoding of a release's content, with its bytes."""

    sha256: str
    kind: str
    base: str | None
    size: int
    data: bytes = field(repr=False)


class RolloutState(StrEnum):
    """Where a rollout is."""

    RUNNING = "running"
    PAUSED = "paused"  # by an operator
    HALTED = "halted"  # by fleetd, because it did harm
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """The limits of a rollout, as its creator chose them."""

    max_failed: int = 1  # this many bad outcomes never halt it
    tolerated: float = 0.01  # share of bad outcomes that is tolerated; 0: one more than max_failed halts
    tolerated_silence: float = 0.005  # the same for cameras that fell silent, which are the worst outcome
    min_sample: int = 1  # no halt on fewer finished cameras
    silence_s: float = 600.0  # silent this long after an offer was taken up: the camera counts as lost
    soak_s: float = (
        0.0  # how long a wave that is done is watched before the next one, and the last before the end
    )
    health: bool = True  # whether it halts on what the model does, too
    ignore: tuple[str, ...] = ()  # signals of model health that halt nothing
    start_at: float | None = None  # nothing is offered before
    window: str | None = None  # hours in which offers are made, as windows.py reads them
    at_once: int | None = None  # at most so many cameras of this rollout are at it at a time
    site_at_once: int | None = None  # and so many of a site, whatever the rollout
    site_per_hour: int | None = None  # at most so many offers an hour at a site
    retries: int = 0  # so many times a camera's failure is tried again by itself
    retry_after_s: float = 300.0  # first delay; doubles
    retry_reasons: tuple[str, ...] = ("connection-lost", "busy", "low-power", "offer-not-taken")
    priority: int = 0  # a rollout takes no camera from one with a higher priority
    take_back: bool = False  # on a halt by fleetd cameras on trial go back, and the way back begins
    way_back: str | None = (
        None  # a release that brings the old content back: a rollout of it begins on such a halt
    )
    approval: bool = False  # nothing is offered before somebody else than its creator has approved
    approved_by: str | None = None
    canaries: int = 0  # so many cameras are a wave of their own before the percentages; 0: none
    accepted: int = 0  # bad outcomes that an operator accepted by resuming; they halt nothing any more
    accepted_lost: int = 0  # those among them that are cameras that fell silent
    accepted_dark: int = 0  # cameras that ran the release and were silent then


@dataclass(frozen=True, slots=True)
class Rollout:
    """A release on its way to the cameras a query names."""

    id: int
    release_id: str
    target: str
    state: RolloutState
    reason: str | None
    waves: tuple[int, ...]  # cumulative percent
    wave: int
    settings: RolloutSettings
    created_at: float
    created_by: str
    finished_at: float | None

    @property
    def wave_count(self) -> int:
        """How many waves there are, the canaries' own included."""
        return len(self.waves) + (1 if self.settings.canaries else 0)


class AssignmentState(StrEnum):
    """One camera's part of a rollout. What may follow what is a table in `assignment.py`."""

    PENDING = "pending"
    OFFERED = "offered"
    TRANSFERRING = "transferring"
    VERIFYING = "verifying"
    TRIAL = "trial"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One camera's part of a rollout."""

    id: int
    rollout_id: int
    camera_id: int
    camera: str
    release_id: str
    wave: int
    state: AssignmentState
    reason: str | None
    detail: str | None
    generation: int | None
    blocks_done: int | None
    blocks_total: int | None
    created_at: float
    offered_at: float | None
    changed_at: float
    deadline_at: float | None
    finished_at: float | None
    retry_at: float | None = None  # pending, but not before that
    was_release: str | None = None  # what the camera ran when the rollout began
    site: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to bring a release to a camera that came to an end, in whatever rollout."""

    camera: str
    release_id: str
    rollout_id: int
    at: float
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class DesiredState:
    """What one camera should run. `generation` grows with every change."""

    camera_id: int
    camera: str
    generation: int
    sent_generation: int
    release_id: str | None
    digest: str | None
    config: Mapping[str, Any]
    deadline: float | None
    changed_at: float


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What a camera said about an update, as landed."""

    id: int
    camera_id: int
    boot: str
    seq: int
    received_at: float
    generation: int
    release_id: str
    state: str
    reason: str | None
    detail: str | None
    digest: str | None
    blocks_done: int | None
    blocks_total: int | None


@dataclass(frozen=True, slots=True)
class Sighting:
    """One observation of a status LED."""

    camera: str
    at: float
    color: str
    pattern: str
    source: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A picture that a camera sent. `why`: command or low-confidence."""

    image: str
    at: float
    size: int
    why: str
    label: str | None
    score: float | None
    release_id: str | None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key whose releases are accepted. `public` is x || y, 64 bytes in hex."""

    key_id: str
    public: str
    name: str
    added_at: float
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class KeyRing:
    """What cameras are to trust: the newest key record, or before the first one (serial 0) the keys in force."""

    serial: int
    epoch: int
    keys: tuple[str, ...]  # x || y in hex; they sign releases
    recovery: tuple[str, ...]  # they sign the next record; if there are none, `keys` do

    @property
    def signers(self) -> tuple[str, ...]:
        """Who may sign the next record."""
        return self.recovery or self.keys


class Role(StrEnum):
    """What a token may do: look, operate, or everything."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Token:
    """An API token; the secret itself is stored only as a hash."""

    id: int
    name: str
    role: Role
    created_at: float
    revoked_at: float | None
