"""/keys: the public halves of keys whose releases are accepted. Private halves never come here."""

from typing import Annotated

from fastapi import APIRouter, status
from pydantic import BaseModel, ConfigDict, StringConstraints

from fleetd.web.inputs import Body, KeyIdPath, ShortLine
from fleetd.web.services import Admin, OtaService, Viewer

router = APIRouter(prefix="/keys", tags=["keys"])


class KeyIn(Body):
    """A public key: x and y of a P-256 point, 64 bytes in hex."""

    public: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
    name: ShortLine


class KeyOut(BaseModel):
    """A key whose releases are accepted, unless it was revoked."""

    model_config = ConfigDict(from_attributes=True)

    key_id: str
    public: str
    name: str
    added_at: float
    revoked_at: float | None


class RingOut(BaseModel):
    """What cameras are to trust. `serial` 0: no key record yet, cameras go by their provisioning."""

    model_config = ConfigDict(from_attributes=True)

    serial: int
    epoch: int
    keys: list[str]
    recovery: list[str]


class RecordIn(Body):
    """A signed key record in hex. `name` is given to keys that fleetd did not know."""

    record: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}){77,2048}$")]
    name: ShortLine


@router.get("/ring")
def ring(ota: OtaService, _: Viewer) -> RingOut:
    """The keys that cameras are to trust, by the newest key record."""
    return RingOut.model_validate(ota.ring())


@router.post("/records", status_code=status.HTTP_201_CREATED)
def add_record(body: RecordIn, ota: OtaService, actor: Admin) -> RingOut:
    """Makes cameras and fleetd trust what a signed key record says. It is sent to every camera."""
    return RingOut.model_validate(ota.add_record(bytes.fromhex(body.record), body.name, actor=actor))


@router.get("")
def list_keys(ota: OtaService, _: Viewer) -> list[KeyOut]:
    """All keys, revoked ones too."""
    return [KeyOut.model_validate(key) for key in ota.keys()]  # noqa: SIM118  # a service, not a dict


@router.post("", status_code=status.HTTP_201_CREATED)
def add(body: KeyIn, ota: OtaService, actor: Admin) -> KeyOut:
    """Accepts releases that this key signed from now on."""
    return KeyOut.model_validate(ota.add_key(body.public, body.name, actor=actor))


@router.delete("/{key_id}", status_code=status.HTTP_204_NO_CONTENT)
def revoke(key_id: KeyIdPath, ota: OtaService, actor: Admin) -> None:
    """Accepts no new release from this key. Cameras keep what they run."""
    ota.revoke_key(key_id, actor=actor)
