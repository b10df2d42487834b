"""/mqtt-users: people and programs that read over MQTT."""

from fastapi import APIRouter, status
from pydantic import BaseModel, ConfigDict

from fleetd.web.inputs import Body, CameraId, MqttUserPath
from fleetd.web.services import AccountsService, Admin

router = APIRouter(prefix="/mqtt-users", tags=["access"])


class MqttUserIn(Body):
    """Somebody to let in. Names look like cameras' names, and no camera may have the same."""

    name: CameraId


class MqttUserOut(BaseModel):
    """Somebody who may read over MQTT."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    created_at: float
    created_by: str


class NewMqttUserOut(BaseModel):
    """A new MQTT user and the password, which is shown this once."""

    name: str
    password: str


@router.get("")
def list_users(accounts: AccountsService, _: Admin) -> list[MqttUserOut]:
    """Everybody who may read over MQTT, by name."""
    return [MqttUserOut.model_validate(user) for user in accounts.users()]


@router.post("", status_code=status.HTTP_201_CREATED)
def add(body: MqttUserIn, accounts: AccountsService, actor: Admin) -> NewMqttUserOut:
    """Lets somebody read everything under the prefix, and answers the password, once."""
    return NewMqttUserOut(name=body.name, password=accounts.add_user(body.name, actor=actor))


@router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT)
def remove(name: MqttUserPath, accounts: AccountsService, actor: Admin) -> None:
    """Ends an account and its connection."""
    accounts.remove_user(name, actor=actor)
