"""/cameras: who is enrolled, what they last said, tags, credentials."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, status
from pydantic import BaseModel, Field

from fleetd.protocol.messages import LedColor, LedPattern
from fleetd.registry import CameraView
from fleetd.web.inputs import Body, CameraId, CameraPath, Line, ReleaseId, ShortLine, SinceQuery, Tag, Target
from fleetd.web.services import Admin, FreshnessService, Operator, OtaService, RegistryService, Viewer

router = APIRouter(prefix="/cameras", tags=["cameras"])
TAGS_PER_REQUEST = 64


class RunningOut(BaseModel):
    """The release a camera says it runs."""

    id: str | None
    digest: str | None
    epoch: int | None
    sequence: int | None


class LedOut(BaseModel):
    """What is known of a camera's LED."""

    color: str
    pattern: str | None
    reason: str | None
    at: float | None


class CameraOut(BaseModel):
    """A camera: identity, presence (computed when asked), and what it last reported."""

    name: str
    presence: str
    silent_s: float | None
    tags: list[str]
    site: str
    pinned: str | None
    note: str
    created_at: float
    revoked_at: float | None
    seen_at: float | None
    connected: bool
    board: str | None
    firmware: str | None
    agent: str | None
    uid: str | None
    boot: str | None
    reset_cause: str | None
    status_at: float | None
    generation: int | None
    release: RunningOut | None
    trial: str | None
    key_serial: int | None
    key_epoch: int | None
    led: LedOut | None
    storage: Mapping[str, Any] | None
    network: Mapping[str, Any] | None
    capabilities: list[str]
    problems: list[str]

    @classmethod
    def of(cls, view: CameraView) -> Self:
        """The answer for one camera."""
        camera = view.camera
        running = None
        if camera.release_id or camera.release_digest:
            running = RunningOut(
                id=camera.release_id,
                digest=camera.release_digest,
                epoch=camera.release_epoch,
                sequence=camera.release_sequence,
            )
        led = None
        if camera.led_color is not None:
            led = LedOut(
                color=camera.led_color,
                pattern=camera.led_pattern,
                reason=camera.led_reason,
                at=camera.led_at,
            )
        return cls(
            name=camera.name,
            presence=str(view.presence),
            silent_s=view.silent_s,
            tags=sorted(camera.tags),
            site=camera.site,
            pinned=camera.pinned,
            note=camera.note,
            created_at=camera.created_at,
            revoked_at=camera.revoked_at,
            seen_at=camera.seen_at,
            connected=camera.connected,
            board=camera.board,
            firmware=camera.firmware,
            agent=camera.agent,
            uid=camera.uid,
            boot=camera.boot,
            reset_cause=camera.reset_cause,
            status_at=camera.status_at,
            generation=camera.generation,
            release=running,
            trial=camera.trial,
            key_serial=camera.key_serial,
            key_epoch=camera.key_epoch,
            led=led,
            storage=camera.storage,
            network=camera.network,
            capabilities=list(camera.capabilities),
            problems=list(camera.problems),
        )


class EnrolIn(Body):
    """A camera to enrol."""

    name: CameraId
    tags: list[Tag] = Field(default_factory=list, max_length=TAGS_PER_REQUEST)
    note: Line = ""


class EnrolledOut(BaseModel):
    """A new camera and its credential, which is shown this once."""

    camera: CameraOut
    secret: str


class SecretOut(BaseModel):
    """A camera's new credential, which is shown this once."""

    name: str
    secret: str


class FreshKeyOut(BaseModel):
    """A camera's key for answers to its nonces. The one before does not count any more."""

    name: str
    fresh_key: str


class TagsIn(Body):
    """Tags to put on and to take off a camera, and the site it is at (empty: none)."""

    add_tags: list[Tag] = Field(default_factory=list, max_length=TAGS_PER_REQUEST)
    remove_tags: list[Tag] = Field(default_factory=list, max_length=TAGS_PER_REQUEST)
    site: Annotated[Line | None, Field(max_length=63)] = None


class PinIn(Body):
    """The release to keep a camera at; without one: what it runs."""

    release: ReleaseId | None = None


class SightingIn(Body):
    """What somebody sees a camera's LED do; or, from `usb`, what a probe found: `reason` is the state then."""

    color: LedColor
    pattern: LedPattern = "solid"
    source: Literal["operator", "usb"] = "operator"
    reason: ShortLine | None = None


class SightingOut(BaseModel):
    """One observation of an LED."""

    camera: str
    at: float
    color: str
    pattern: str
    source: str
    reason: str | None


@router.get("")
def list_cameras(
    registry: RegistryService,
    _: Viewer,
    target: Annotated[Target | None, Query(description="Only cameras this query names.")] = None,
) -> list[CameraOut]:
    """Cameras by name, all or those that a target query names."""
    return [CameraOut.of(view) for view in registry.cameras(target)]


@router.post("", status_code=status.HTTP_201_CREATED)
def enrol(body: EnrolIn, registry: RegistryService, actor: Admin) -> EnrolledOut:
    """Enrols a camera and answers its credential, once."""
    _camera, secret = registry.enrol(body.name, actor=actor, tags=body.tags, note=body.note)
    return EnrolledOut(camera=CameraOut.of(registry.camera(body.name)), secret=secret)


@router.get("/{name}")
def show(name: CameraPath, registry: RegistryService, _: Viewer) -> CameraOut:
    """One camera."""
    return CameraOut.of(registry.camera(name))


@router.patch("/{name}")
def tag(name: CameraPath, body: TagsIn, registry: RegistryService, actor: Operator) -> CameraOut:
    """Puts tags on a camera, takes others off, says at which site it is."""
    if body.site is not None:
        registry.move(name, body.site, actor=actor)
    return CameraOut.of(registry.tag(name, add=body.add_tags, remove=body.remove_tags, actor=actor))


@router.put("/{name}/pin")
def pin(
    name: CameraPath, body: PinIn, ota: OtaService, registry: RegistryService, actor: Operator
) -> CameraOut:
    """Keeps a camera at a release: rollouts of others leave it out, and what is on its way is taken back."""
    ota.pin(name, body.release, actor=actor)
    return CameraOut.of(registry.camera(name))


@router.delete("/{name}/pin")
def unpin(name: CameraPath, ota: OtaService, registry: RegistryService, actor: Operator) -> CameraOut:
    """Lets rollouts bring the camera anything again."""
    ota.unpin(name, actor=actor)
    return CameraOut.of(registry.camera(name))


@router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT)
def remove(name: CameraPath, registry: RegistryService, actor: Admin) -> None:
    """Removes a camera with its history; its credential stops working."""
    registry.remove(name, actor=actor)


@router.post("/{name}/secret")
def rotate_secret(name: CameraPath, registry: RegistryService, actor: Admin) -> SecretOut:
    """Replaces a camera's credential and answers the new one, once."""
    return SecretOut(name=name, secret=registry.rotate_secret(name, actor=actor))


@router.post("/{name}/fresh-key")
def new_fresh_key(name: CameraPath, freshness: FreshnessService, actor: Admin) -> FreshKeyOut:
    """Gives the camera a new key for answers to its nonces: for `fresh_key` in its config.json."""
    return FreshKeyOut(name=name, fresh_key=freshness.new_key(name, actor=actor))


@router.post("/{name}/revoke", status_code=status.HTTP_204_NO_CONTENT)
def revoke(name: CameraPath, registry: RegistryService, actor: Admin) -> None:
    """Cuts a camera off: its credential ends at once, and what it still sends is not stored."""
    registry.revoke(name, actor=actor)


@router.post("/{name}/reinstate")
def reinstate(name: CameraPath, registry: RegistryService, actor: Admin) -> SecretOut:
    """Takes a revoked camera back and answers its new credential, once."""
    return SecretOut(name=name, secret=registry.reinstate(name, actor=actor))


@router.get("/{name}/leds")
def list_leds(
    name: CameraPath, registry: RegistryService, _: Viewer, newest: SinceQuery
) -> list[SightingOut]:
    """What one camera's LED was seen doing, newest first."""
    found = registry.sightings(name, since=newest.since, limit=newest.limit)
    return [SightingOut.model_validate(sighting, from_attributes=True) for sighting in found]


@router.post("/{name}/leds", status_code=status.HTTP_204_NO_CONTENT)
def report_led(name: CameraPath, body: SightingIn, registry: RegistryService, actor: Operator) -> None:
    """Notes what an operator sees a camera's LED do, or what USB shows."""
    registry.report_led(
        name, color=body.color, pattern=body.pattern, source=body.source, reason=body.reason, actor=actor
    )
