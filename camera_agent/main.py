"""What the firmware starts: a copy of this file lies beside the folder `camera_agent`, as /flash/main.py.

It is as small as can be, because it is never changed over the air, and never returns into a dead board: OpenMV runs
main.py only once after a cold start. Which agent runs is decided in camera_agent/boot.py, what it does when it ends in
camera_agent/start.py. Only a person who pressed Ctrl-C gets the REPL.

RAM BUDGET: nothing worth counting.
"""

import sys
import time

_PAUSE_S = 10  # before a restart after an error, so that a camera that cannot start is not a blinding light


def main():
    """Choose an agent and run it; restart the board when that was not possible. Never raises."""
    try:
        _run()
    except BaseException as error:  # nothing above this could do anything about it
        try:
            _show(error)
            time.sleep(_PAUSE_S)
        except BaseException:
            return  # a person at the REPL
        import machine

        machine.reset()


def _run():
    facts = _choose()
    from camera_agent.start import start

    start(facts)


def _choose():
    try:
        from camera_agent.boot import choose

        return choose()
    except Exception as error:  # that part of the files is damaged; perhaps the rest is not
        _show(error)
        return {}


def _show(error):
    if hasattr(sys, "print_exception"):
        sys.print_exception(error)


if __name__ == "__main__":
    main()
