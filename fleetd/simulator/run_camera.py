"""One virtual camera as a process of its own: `python -m fleetd.simulator.run_camera FOLDER`.

FOLDER/fleet/config.json holds its settings, as on a board. Killing the process is a power cut.
"""

import signal
import sys
import zlib
from pathlib import Path

from camera_agent import boot
from camera_agent.start import run
from fleetd.errors import FleetError
from fleetd.simulator.desk_hal import DeskHal, ResetRequested


def main() -> int:
    """Boots the camera until SIGTERM or Ctrl-C."""
    if len(sys.argv) != 2:
        print("usage: python -m fleetd.simulator.run_camera FOLDER", file=sys.stderr)  # noqa: T201
        return 2
    folder = Path(sys.argv[1])
    stopping = []

    def stop(*_: object) -> None:
        stopping.append(True)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    cause = "power-on"
    while not stopping:
        try:
            facts = boot.choose(str(folder), cause, lambda *_: True)
            run(DeskHal(folder, seed=zlib.crc32(folder.name.encode()), cause=cause), facts)
        except ResetRequested:
            pass  # boots again, like a board
        except KeyboardInterrupt:
            break  # it came before the agent ran
        except FleetError as error:
            print(f"run_camera: {error}", file=sys.stderr)  # noqa: T201
            return 1
        cause = "soft"
    return 0


if __name__ == "__main__":
    sys.exit(main())
