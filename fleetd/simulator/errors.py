"""What the simulator needs and does not find."""

from fleetd.errors import FleetError


class SimulatorUnavailableError(FleetError):
    """Virtual cameras need LiteRT, numpy and Pillow: pip install 'fleetd[demo]'. Nothing was started."""

    code = "simulator_unavailable"
