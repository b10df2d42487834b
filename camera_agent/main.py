"""What the firmware starts: a copy of this file lies beside the folder `camera_agent`, as /flash/main.py.

It never returns into a dead board: when the agent ends, for whatever reason, the board restarts. OpenMV runs main.py
only once after a cold start, so nothing else would. Only a person who pressed Ctrl-C on a camera without settings,
or with the setting `debug`, gets the REPL.

RAM BUDGET: nothing worth counting.
"""

import gc
import sys
import time

_PAUSE_S = 10  # before a restart after an error, so that a camera that cannot start is not a blinding light

# On a small heap the parts are loaded one at a time, those with most code first, and the garbage of compiling is
# collected in between; from then on it is collected often, so that what stays lies close together and leaves room in
# one piece. On a large heap collecting takes a quarter of a second each time and helps nobody.
_PARTS = ("protocol", "mqtt", "updater", "link", "vision", "slots", "hal", "agent")
# These are loaded when they are needed (heap.load). Their names stay in memory for good: once, before it is in pieces.
_GUESTS = (
    "p256",
    "decision",
    "fields",
    "manifest",
    "offers",
    "transfer",
    "unpack",
    "volume",
    "engine",
    "settings",
    "golden",
    "keyring",
)
_SMALL_HEAP = 600_000
_THRESHOLD = 4096  # bytes of garbage


def main():
    """Run the agent, then restart the board. Never raises."""
    hal = None
    try:
        _load()
        from camera_agent.hal import Hal

        hal = Hal()
        from camera_agent.agent import run

        if not run(hal):
            return
    except BaseException as error:  # nothing above this could do anything about it
        _show(error)
        _pause(hal)
    _restart(hal)


def _load():
    if not hasattr(gc, "mem_free") or gc.mem_free() > _SMALL_HEAP:
        return
    if hasattr(gc, "threshold"):
        gc.threshold(_THRESHOLD)
    from camera_agent import heap

    for name in _PARTS + _GUESTS:
        heap.load(name)
        if name in _GUESTS:
            heap.forget(name)
        gc.collect()


def _show(error):
    try:
        sys.print_exception(error)
    except Exception:
        pass  # no room for a traceback


def _pause(hal):
    until = time.time() + _PAUSE_S
    while time.time() < until:
        try:
            hal.feed()
            hal.led_step()
        except Exception:
            pass  # the board could not even be opened
        time.sleep(0.05)


def _restart(hal):
    try:
        hal.reset()
    except Exception:
        import machine

        machine.reset()


if __name__ == "__main__":
    main()
