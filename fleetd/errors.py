"""Everything that can go wrong, as one tree.

    FleetError
    ├── SettingsError            the configuration cannot be used
    ├── NotFoundError            no such camera, release, rollout ...
    ├── ConflictError            it exists already, or changed meanwhile
    ├── InvalidError             the request makes no sense; nothing was changed
    ├── AccessError              not allowed, or not known who asks
    └── UnavailableError         broker, database or disk is not usable right now

Areas add their own leaves (for example `fleetd.bundles.errors`). The docstring is the default message, facts
are keyword attributes, `code` is stable for programs. Only the edges know HTTP statuses and exit codes.
"""

from typing import ClassVar


class FleetError(Exception):
    """fleetd could not do that."""

    code: ClassVar[str] = "fleet_error"

    def __init__(self, message: str | None = None, **facts: object) -> None:
        super().__init__(message or " ".join((type(self).__doc__ or "").split()))
        self.facts = facts

    @property
    def message(self) -> str:
        """What happened, what was kept and what to do next, for a person."""
        return str(self)


class SettingsError(FleetError):
    """The configuration cannot be used; fleetd did not start."""

    code = "settings_invalid"


class NotFoundError(FleetError):
    """There is no such thing."""

    code = "not_found"


class UnknownCameraError(NotFoundError):
    """No camera with that name is enrolled. `fleetctl cameras list` shows those that are."""

    code = "unknown_camera"


class UnknownReleaseError(NotFoundError):
    """There is no release with that id. `fleetctl releases list` shows those that exist."""

    code = "unknown_release"


class UnknownRolloutError(NotFoundError):
    """There is no rollout with that number. `fleetctl rollouts list` shows those that exist."""

    code = "unknown_rollout"


class ConflictError(FleetError):
    """It changed meanwhile, or exists already. Nothing was changed; look again and repeat."""

    code = "conflict"


class InvalidError(FleetError):
    """The request cannot be carried out as it stands. Nothing was changed."""

    code = "invalid"


class AccessError(FleetError):
    """You are not allowed to do that, or the token is not known."""

    code = "access_denied"


class UnavailableError(FleetError):
    """Something that fleetd depends on does not answer right now. Nothing was changed; try again."""

    code = "unavailable"


class BrokerError(UnavailableError):
    """The MQTT broker cannot be used."""

    code = "broker_unavailable"


class StoreError(UnavailableError):
    """The database cannot be used right now."""

    code = "store_unavailable"
