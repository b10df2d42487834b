"""What may stand in a path, a query or a body. One pattern per kind of name, the contract's own."""

from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from fleetd.protocol import limits
from fleetd.protocol.ids import CAMERA_ID, RELEASE_ID

LIMIT_CEILING: Final = 1000
TARGET_CHARS: Final = 4096  # what a target query may have

_CLEAN = r"^[^\x00-\x1f\x7f]*$"  # one line of text: these end up in terminals, logs and audit entries

CameraId = Annotated[str, StringConstraints(pattern=f"^{CAMERA_ID}$")]
ReleaseId = Annotated[str, StringConstraints(pattern=f"^{RELEASE_ID}$")]
Line = Annotated[str, StringConstraints(max_length=500, pattern=_CLEAN)]
ShortLine = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_CLEAN)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=_CLEAN)]
Target = Annotated[str, StringConstraints(min_length=1, max_length=TARGET_CHARS, pattern=_CLEAN)]
Label = Annotated[str, StringConstraints(max_length=limits.LABEL_BYTES, pattern=r"^[^\x00]*$")]
UnixSeconds = Annotated[float, Field(ge=0, le=2**40, allow_inf_nan=False)]

CameraPath = Annotated[CameraId, Path(description="The camera's name.")]
ReleasePath = Annotated[ReleaseId, Path(description="The release's id.")]
RolloutPath = Annotated[int, Path(ge=1, le=2**31 - 1, description="The rollout's number.")]
WordPath = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
CommandIdPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9-]{1,32}$")]
KeyIdPath = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="The key's id.")]
MqttUserPath = Annotated[CameraId, Path(description="The MQTT user's name.")]
TokenNamePath = Annotated[ShortLine, Path(description="The token's name.")]


class Body(BaseModel):
    """A request body: a field we do not know is a typing error, not something to pass over."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Newest(BaseModel):
    """The newest entries of a list, at most `limit`."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=LIMIT_CEILING)


class Since(Newest):
    """The newest entries that are not older than `since` (Unix seconds)."""

    since: UnixSeconds | None = None


class Window(Since):
    """One camera's or all cameras' entries from `since` on and before `until` (Unix seconds)."""

    camera: CameraId | None = None
    until: UnixSeconds | None = None


NewestQuery = Annotated[Newest, Query()]
SinceQuery = Annotated[Since, Query()]
WindowQuery = Annotated[Window, Query()]
