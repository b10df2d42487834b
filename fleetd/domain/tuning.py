"""Settings that a camera may change while it runs: what `config` in `down/desired` may hold, each with its limits.

The camera checks the same by itself (camera_agent/tuning.py and settings.py) and refuses by name; a test pins the two.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, ValidationError

from fleetd.errors import InvalidError
from fleetd.protocol.limits import RESULTS_PER_MESSAGE

_Share = Annotated[StrictFloat | StrictInt, Field(ge=0, le=1)]  # NaN is neither
_Percent = Annotated[StrictInt, Field(ge=0, le=100)]
_Day = Annotated[StrictInt, Field(ge=0, le=86_400)]
_Often = Annotated[StrictInt, Field(ge=1, le=1000)]


class Wifi(BaseModel):
    """Another WiFi. The camera tries it, and takes it back when it does not lead to the broker."""

    model_config = ConfigDict(extra="forbid")

    ssid: str = Field(min_length=1, max_length=32, pattern=r"^[^\x00]+$")
    key: str = Field("", max_length=64, pattern=r"^[^\x00]*$")


class Tuning(BaseModel):
    """See the module's docstring; docs/cameras.md explains each. What is not named is not wanted: no defaults."""

    model_config = ConfigDict(extra="forbid")

    publish: Literal["every", "on_change", "interval", "summary"] = "every"
    interval_ms: Annotated[StrictInt, Field(ge=0, le=86_400_000)] = 0
    publish_s: Annotated[_Day, Field(ge=1)] = 1
    change_frames: _Often = 1
    threshold: _Share | None = None
    roi: Annotated[list[_Percent], Field(min_length=4, max_length=4)] | None = None
    frame_size: Literal["QVGA", "VGA", "XGA", "SXGA", "UXGA"] | None = None
    snapshot_below: _Share | None = None
    snapshots_per_day: Annotated[StrictInt, Field(ge=0, le=1000)] = 0
    batch: Annotated[StrictInt, Field(ge=1, le=RESULTS_PER_MESSAGE)] = 1
    batch_ms: Annotated[StrictInt, Field(ge=0, le=3_600_000)] = 0
    scores: StrictBool = False
    sleep_s: _Day = 0
    awake_s: Annotated[StrictInt, Field(ge=10, le=3600)] = 10
    telemetry_s: Annotated[StrictInt, Field(ge=1, le=3600)] = 1
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    wifi: Wifi = Wifi(ssid="-")


NAMES: Final = tuple(Tuning.model_fields)


def check_tuning(values: dict[str, Any]) -> dict[str, Any]:
    """The values, if a camera takes all of them; InvalidError says which not, and why."""
    try:
        Tuning.model_validate(values)
    except ValidationError as error:
        found = []
        for one in error.errors(include_url=False, include_input=False):
            name = str(one["loc"][0]) if one["loc"] else "settings"
            unknown = one["type"] == "extra_forbidden" and len(one["loc"]) == 1
            found.append(f"{name}: {'no such setting' if unknown else one['msg'].lower()}")
        known = f" Known: {', '.join(NAMES)}." if any("no such setting" in text for text in found) else ""
        raise InvalidError(
            f"The settings cannot be used: {'; '.join(dict.fromkeys(found))}.{known} Nothing was changed."
        ) from error
    _check_wifi(values.get("wifi"))
    roi = values.get("roi")
    if roi is not None and (min(roi[2:]) < 10 or roi[0] + roi[2] > 100 or roi[1] + roi[3] > 100):
        raise InvalidError(
            "roi: left, top, width and height in percent, at least 10 wide and high, and inside the picture. "
            "Nothing was changed."
        )
    return values


def _check_wifi(wifi: dict[str, str] | None) -> None:
    """What no access point has would cost every camera a trial and two restarts."""
    if wifi is None:
        return
    key = len(wifi.get("key", "").encode())
    if len(wifi["ssid"].encode()) > 32 or (key and not 8 <= key <= 64):
        raise InvalidError(
            "wifi: a network's name has at most 32 bytes, its key 8 to 64, or none at all. Nothing was changed."
        )


def shown(values: dict[str, Any]) -> dict[str, Any]:
    """The values for people and logs: a WiFi's key is hidden."""
    wifi = values.get("wifi")
    if isinstance(wifi, dict) and "key" in wifi:
        return {**values, "wifi": {**wifi, "key": "***"}}
    return values
