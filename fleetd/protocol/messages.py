"""Messages on the wire, both ways, as they are validated.

Everything a camera says carries `boot` (random per boot), `seq` (per boot, from 1), `up_ms` (its monotonic
clock) and `t` (Unix seconds) only when its clock is trusted. `low` is the lowest seq of this boot that the
camera still holds: everything below it was stored by fleetd or is declared lost. Sequence number 0 is
kept for last wills, which belong to no order.

TypedDicts are used for speed: `TypeAdapter.validate_json` on bytes costs 1.3-1.8 us a message. Unknown
fields are dropped here and kept nowhere, so that a newer camera can talk to an older fleetd.
"""

from typing import Annotated, Any, Final, Literal, NotRequired, Required

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter
from typing_extensions import TypedDict

from fleetd.protocol import limits
from fleetd.protocol.ids import BOOT_ID, DIGEST, RELEASE_ID

_CONFIG: Final = ConfigDict(extra="ignore", allow_inf_nan=False)

# No NUL and no lone surrogates: PostgreSQL refuses the first, UTF-8 the second.
_CLEAN = r"^[^\x00]*$"
Text = Annotated[str, StringConstraints(max_length=limits.TEXT_CHARS, pattern=_CLEAN)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_CLEAN)]
Label = Annotated[str, StringConstraints(max_length=limits.LABEL_BYTES, pattern=_CLEAN)]
Boot = Annotated[str, StringConstraints(pattern=rf"^{BOOT_ID}$")]
Digest = Annotated[str, StringConstraints(pattern=rf"^{DIGEST}$")]
ReleaseId = Annotated[str, StringConstraints(pattern=rf"^{RELEASE_ID}$")]
Nonce = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Seq = Annotated[int, Field(ge=0, le=limits.SEQ_MAX)]
Count = Annotated[int, Field(ge=0, le=limits.SEQ_MAX)]
Score = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0, le=2**40)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]

UpdateState = Literal["transferring", "verifying", "trial", "confirmed", "reverted", "failed", "rejected"]
UpdateReason = Literal[
    "not-enough-storage",
    "storage-error",
    "out-of-memory",
    "connection-lost",
    "digest-mismatch",
    "signature-invalid",
    "unknown-key",
    "manifest-invalid",
    "expired",
    "sequence-too-old",
    "wrong-epoch",
    "wrong-board",
    "unsupported-kind",
    "unsupported-op",
    "unsupported-encoding",
    "labels-mismatch",
    "golden-mismatch",
    "inference-too-slow",
    "model-load-failed",
    "trial-crashed",
    "trial-hung",
    "boot-loop",
    "busy",
    "low-power",
    "operator-cancelled",
    "window-closed",
    "storage-reset",
    "unknown-release",
]
LedColor = Literal["off", "red", "green", "blue", "cyan", "magenta", "yellow", "white", "unknown"]
LedPattern = Literal["solid", "blink", "blink-fast", "double-blink", "cycle", "off", "unknown"]
ResetCause = Literal["power-on", "hard", "watchdog", "deepsleep", "soft", "brown-out", "unknown"]


class Envelope(TypedDict):
    """What every message from a camera carries."""

    boot: Boot
    seq: Seq
    up_ms: Count
    t: NotRequired[Seconds]
    low: NotRequired[Seq]


class RunningRelease(TypedDict):
    """The release a camera runs, as it reports it."""

    id: ReleaseId
    digest: Digest  # SHA-256 of the content
    sequence: Count
    epoch: NotRequired[Count]
    slot: NotRequired[Literal["a", "b"]]


class Keys(TypedDict):
    """Which key record a camera goes by, and its epoch. Record 0: the keys of its provisioning."""

    serial: Count
    epoch: Count


class Storage(TypedDict):
    """Where slots live and how much room is left, in bytes."""

    backend: Word
    free: NotRequired[Count]
    total: NotRequired[Count]
    slot_bytes: NotRequired[Count]


class Network(TypedDict):
    """How the camera is connected."""

    kind: Word
    ip: NotRequired[Word]
    rssi: NotRequired[Number]
    reconnects: NotRequired[Count]  # connections after the first one, since boot, like all that follow
    failed: NotRequired[Count]  # no connection came about
    kicked: NotRequired[Count]  # ended by the broker within ten seconds
    dead: NotRequired[Count]  # noticed by silence
    joins: NotRequired[Count]  # times that the camera asked to join the WiFi
    rebuilds: NotRequired[Count]  # ... or made a new interface object
    asleep_s: NotRequired[Count]  # in the last status before it sleeps: for so many seconds
    resets: NotRequired[Count]  # restarts in a row because there was no connection


class Status(Envelope):
    """`up/status`, retained: who the camera is and what it runs; also its last will (seq 0, online false)."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]  # the only way to configure a TypedDict

    online: bool
    reset: NotRequired[ResetCause]
    agent: NotRequired[Word]
    firmware: NotRequired[Word]
    board: NotRequired[Word]
    uid: NotRequired[Word]
    generation: NotRequired[Count]
    release: NotRequired[RunningRelease | None]
    agent_release: NotRequired[RunningRelease | None]  # None: the agent in the files on its drive
    trial: NotRequired[ReleaseId | None]
    keys: NotRequired[Keys]
    nonce: NotRequired[Nonce]  # answered on `down/fresh`
    storage: NotRequired[Storage]
    network: NotRequired[Network]
    capabilities: NotRequired[Annotated[list[Word], Field(max_length=64)]]
    problems: NotRequired[Annotated[list[Word], Field(max_length=32)]]


class Classification(TypedDict):
    """One frame's answer. `dt` is the frame's time in ms relative to the message's `up_ms` (<= 0)."""

    label: Label
    score: Score
    dt: NotRequired[Annotated[int, Field(ge=-(2**31), le=0)]]
    scores: NotRequired[Annotated[list[Score], Field(max_length=limits.LABELS)]]
    inference_ms: NotRequired[Annotated[float, Field(ge=0, le=1e6)]]
    frame: NotRequired[Count]
    count: NotRequired[Annotated[int, Field(ge=1, le=2**31 - 1)]]  # frames it stands for, in a summary


class Result(Envelope):
    """`up/result`: a batch of classifications made with one release."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    release: NotRequired[ReleaseId | None]
    results: Annotated[list[Classification], Field(min_length=1, max_length=limits.RESULTS_PER_MESSAGE)]


class Telemetry(Envelope):
    """`up/telemetry`: how the camera is doing. All but the envelope is optional: boards differ."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    fps: NotRequired[Annotated[float, Field(ge=0, le=1e4)]]
    inference_ms: NotRequired[Annotated[float, Field(ge=0, le=1e6)]]  # median since the last message
    inference_ms_max: NotRequired[Annotated[float, Field(ge=0, le=1e6)]]
    capture_ms: NotRequired[Annotated[float, Field(ge=0, le=1e6)]]  # medians, as inference_ms
    frame_ms: NotRequired[Annotated[float, Field(ge=0, le=1e6)]]  # capture, inference and what the agent does
    heap_free: NotRequired[Count]
    storage_free: NotRequired[Count]
    rssi: NotRequired[Number]
    temperature_c: NotRequired[Number]
    supply_v: NotRequired[Number]
    uptime_s: NotRequired[Count]
    frames: NotRequired[Count]
    queue: NotRequired[Count]  # messages in the outbox
    dropped: NotRequired[dict[Word, Count]]  # by class since boot
    reconnects: NotRequired[Count]
    picture: NotRequired[dict[Word, Number | Word | None]]


class Led(Envelope):
    """`up/led`: the state the agent has just set, and why."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    color: LedColor
    pattern: LedPattern
    reason: NotRequired[Word]


class Blocks(TypedDict):
    """Progress of a transfer in blocks."""

    done: Count
    total: Count


class Update(Envelope):
    """`up/update`: progress or outcome of an update. Success is `confirmed` with the target's digest."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    generation: Count
    release: ReleaseId
    state: UpdateState
    reason: NotRequired[Word | None]  # one of UpdateReason; kept open so that a newer agent is understood
    detail: NotRequired[Text | None]
    digest: NotRequired[Digest | None]
    blocks: NotRequired[Blocks | None]
    bytes: NotRequired[Count]
    ms: NotRequired[Annotated[dict[Word, Count], Field(max_length=16)]]


class Event(Envelope):
    """`up/event`: boots, exceptions, radio loss, flight-recorder entries."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    kind: Word
    text: NotRequired[Text]
    hash: NotRequired[Word]  # groups equal tracebacks


class Reply(Envelope):
    """`up/reply/<cmd>`: what became of a command."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    id: Word
    ok: bool
    reason: NotRequired[Word | None]
    data: NotRequired[dict[str, Any] | None]


class Image(Envelope):
    """The line of JSON before the bytes of `up/image/<image>/<n>`: piece `n` of a JPEG, and what picture it is."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    size: Annotated[int, Field(ge=1, le=limits.IMAGE_BYTES)]
    pieces: Annotated[int, Field(ge=1, le=limits.IMAGE_PIECES)]
    sha256: Digest
    why: Word  # command, low-confidence
    label: NotRequired[Label]
    score: NotRequired[Score]
    release: NotRequired[ReleaseId | None]


class Desired(TypedDict):
    """`down/desired`, retained: what the camera should be running. `generation` grows with every change."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    generation: Required[Count]
    release: ReleaseId | None  # None: leave the model as it is
    digest: NotRequired[Digest | None]  # SHA-256 of the signed manifest's bytes
    config: NotRequired[dict[str, Any]]
    deadline: NotRequired[Seconds | None]


class Ack(TypedDict):
    """`down/ack`: what is stored of one boot, as inclusive ranges of seq."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    boot: Boot
    seq: Annotated[list[tuple[Seq, Seq]], Field(max_length=256)]


class Fresh(TypedDict):
    """`down/fresh`: the answer to a camera's nonce. What `mac` covers is in `fleetd.protocol.fresh`."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    nonce: Nonce
    t: Annotated[int, Field(ge=0, le=2**40)]  # fleetd's clock
    generation: Count  # of the newest desired state for this camera
    keys: Count  # the newest key record
    mac: Digest


class Command(TypedDict):
    """`down/cmd/<cmd>`: something to do once. `ttl` is how many seconds it stays good after sending."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    id: Word
    t: Seconds  # fleetd's clock when it was sent
    ttl: Annotated[int, Field(ge=1, le=86400)]
    args: NotRequired[dict[str, Any]]


class DaemonStatus(TypedDict):
    """`_fleetd/status`, retained: a new `instance` tells cameras to repeat what is not stored.

    `keys`: the number of the newest key record; cameras fetch those they lack from `_release/keys-<n>`.
    """

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    online: bool
    instance: Word
    version: NotRequired[Word]
    t: NotRequired[Seconds]
    keys: NotRequired[Count]  # the newest key record


STATUS: Final = TypeAdapter(Status)
RESULT: Final = TypeAdapter(Result)
TELEMETRY: Final = TypeAdapter(Telemetry)
LED: Final = TypeAdapter(Led)
UPDATE: Final = TypeAdapter(Update)
EVENT: Final = TypeAdapter(Event)
REPLY: Final = TypeAdapter(Reply)
IMAGE: Final = TypeAdapter(Image)
DESIRED: Final = TypeAdapter(Desired)
ACK: Final = TypeAdapter(Ack)
FRESH: Final = TypeAdapter(Fresh)
COMMAND: Final = TypeAdapter(Command)
DAEMON_STATUS: Final = TypeAdapter(DaemonStatus)

UP: Final[dict[str, TypeAdapter[Any]]] = {
    "status": STATUS,
    "result": RESULT,
    "telemetry": TELEMETRY,
    "led": LED,
    "update": UPDATE,
    "event": EVENT,
    "reply": REPLY,
    "image": IMAGE,  # the first line only; bytes follow
}
DOWN: Final[dict[str, TypeAdapter[Any]]] = {"desired": DESIRED, "ack": ACK, "fresh": FRESH, "cmd": COMMAND}
