"""What the simulator needs and does not find."""

from importlib.util import find_spec

from fleetd.errors import FleetError


class SimulatorUnavailableError(FleetError):
    """Virtual cameras need LiteRT, numpy and Pillow: pip install 'fleetd[demo]'. Nothing was started."""

    code = "simulator_unavailable"


def check_available() -> None:
    """SimulatorUnavailableError unless the extra `demo` is installed."""
    if not all(find_spec(name) for name in ("ai_edge_litert", "numpy", "PIL")):
        raise SimulatorUnavailableError
