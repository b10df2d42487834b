"""The causes a diagnosis can name: what each means, how bad it is, and what to do first, in words."""

from typing import Final, Literal, NamedTuple

Severity = Literal["info", "warning", "critical"]


class Cause(NamedTuple):
    """One cause. `guide` names the family of guides that deals with it (fleetd/boards/guides)."""

    key: str
    title: str
    guide: str
    severity: Severity
    todo: str


_ALL: Final = (
    Cause("healthy", "nothing is wrong", "none", "info", "Nothing."),
    Cause("busy", "the camera is at work", "wait", "info", "Wait a few minutes and look again."),
    Cause("no-power", "no power", "power", "critical",
          "Check supply, switch and cable; try another USB port and cable."),
    Cause("power-weak", "the power supply is too weak", "supply", "warning",
          "Use a supply with more current and a shorter cable."),
    Cause("firmware-fault", "the firmware has frozen", "ladder", "critical",
          "Cut the power for ten seconds."),
    Cause("firmware-panic", "the firmware has given up", "ladder", "critical",
          "Cut the power for ten seconds."),
    Cause("agent-hangs", "the agent hangs", "ladder", "critical", "Cut the power for ten seconds."),
    Cause("agent-silent", "the firmware runs, the agent does not report", "ladder", "critical",
          "Cut the power for ten seconds; then look at the network."),
    Cause("agent-crash", "the agent fails again and again", "ladder", "critical",
          "Look at `fleetctl events --camera CAMERA`, then cut the power for ten seconds."),
    Cause("boot-loop", "it restarts again and again", "ladder", "critical",
          "Look at `fleetctl events --camera CAMERA` for the reason."),
    Cause("lost-over-update", "it went silent over an update", "ladder", "critical",
          "Cut the power for ten seconds: the camera then goes back to its old model by itself."),
    Cause("storage-bad", "its storage does not keep what is written", "erase", "warning",
          "Replace the SD card, or erase the storage and provision again."),
    Cause("stuck-in-bootloader", "it stays in its bootloader", "reflash", "critical",
          "Cut the power for ten seconds; if it comes back to the bootloader, write the firmware again."),
    Cause("flash-interrupted", "writing its flash was cut off", "reflash", "critical",
          "Write the firmware again."),
    Cause("bootloader-lost", "it has no bootloader", "jumper", "critical",
          "Take the bridge out if one is in; else write bootloader and firmware again."),
    Cause("storage-reset", "its storage was formatted", "provision", "critical",
          "Provision it again under its old name: the drive is there, only empty."),
    Cause("never-provisioned", "it never reported", "provision", "warning",
          "Provision it, then see that it reaches the network."),
    Cause("no-settings", "its settings cannot be used", "provision", "critical", "Provision it again."),
    Cause("no-network", "it has no network", "network", "critical",
          "Check access point, cable, WiFi name and password."),
    Cause("no-broker", "it does not reach the broker", "network", "critical",
          "Check that the broker is up, its address, and the camera's credential."),
    Cause("no-sensor", "its image sensor fails", "sensor", "critical",
          "Check the sensor module and its connector."),
    Cause("frozen-picture", "its picture does not change", "sensor", "warning",
          "Restart it; if the picture stays, check the sensor module."),
    Cause("no-model", "it has no model that works", "model", "warning", "Push a model."),
    Cause("two-cameras-one-name", "two devices use one name", "identity", "critical",
          "Find the second device and provision it under another name."),
    Cause("unknown", "unknown", "look", "warning",
          "Connect it by USB to this machine and look at its light, then run `fleetctl recover` again."),
)  # fmt: skip
CAUSES: Final = {cause.key: cause for cause in _ALL}
