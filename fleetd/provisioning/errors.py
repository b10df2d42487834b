"""What can go wrong between this machine and a camera's drive."""

from typing import ClassVar

from fleetd.errors import FleetError, InvalidError, UnavailableError


class NotACameraDriveError(InvalidError):
    """The folder is not the drive of an OpenMV camera. Nothing was written."""

    code = "not_a_camera_drive"


class ConfigRefusedError(InvalidError):
    """The camera could not use these settings. Nothing was written."""

    code = "config_refused"


class PackageError(FleetError):
    """The camera agent that comes with fleetd is incomplete. Install fleetd again."""

    code = "agent_package"


class DriveError(UnavailableError):
    """The drive cannot be used."""

    code = "drive_failed"
    remedy: ClassVar[str] = "Try another cable or USB port, then run the same command again."


class DriveFullError(DriveError):
    """There is not enough room on the drive."""

    code = "drive_full"
    remedy = "Remove files that are not needed from the drive, then run the same command again."


class DriveGoneError(DriveError):
    """The drive is not there any more."""

    code = "drive_gone"
    remedy = "Connect the camera again, then run the same command again."


class DriveReadOnlyError(DriveError):
    """The drive cannot be written."""

    code = "drive_read_only"
    remedy = (
        "An SD card may be locked; Linux makes a drive with a damaged file system read-only: eject it, reset the "
        "camera, and run the same command again."
    )


class DriveRefusedError(DriveError):
    """This machine does not let you write on the drive."""

    code = "drive_refused"
    remedy = (
        "Close programs that use the drive, look at who may write on it, then run the same command again."
    )
