"""A key record: how cameras learn over the air which keys they trust from now on.

Framed and signed like a manifest (`fleetd.protocol.manifest`), with b"FKR1" instead of b"FLM1", and retained at
`_release/keys-<serial>`. It is signed by a recovery key if the record before names any, else by one of its keys.
A camera takes records one after the other: the serial number is the next one, the epoch the same or the next. It
then takes releases of that epoch only, signed by one of `keys`; sequence numbers begin anew with a new epoch.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

RECORD_MAGIC: Final = b"FKR1"
RECORD_BYTES: Final = 2048
KEYS: Final = 8  # in one record, recovery keys included

PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


class KeyRecord(BaseModel):
    """The signed part. Keys are x || y in hex."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1]
    serial: int = Field(ge=1, lt=2**31)
    epoch: int = Field(ge=1, lt=2**31)
    created: int = Field(ge=1)
    keys: list[PublicKey] = Field(min_length=1, max_length=KEYS)
    recovery: list[PublicKey] = Field(default_factory=list, max_length=KEYS)

    @model_validator(mode="after")
    def _few(self) -> "KeyRecord":
        if len(self.keys) + len(self.recovery) > KEYS:
            raise ValueError(f"a camera takes at most {KEYS} keys")
        return self


def record_name(serial: int) -> str:
    """Under which name a record is retained among the releases."""
    return f"keys-{serial}"
