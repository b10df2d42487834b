"""Runs the agent that camera_agent/boot.py has chosen, then restarts the board.

    start(facts)      # the contract between the files on a drive and agents that come over the air: see boot.choose()

When the agent ends, for whatever reason, the board restarts. Only a person who pressed Ctrl-C gets the REPL: for good
on a camera without settings or with the setting `debug`, otherwise until the watchdog, or a timer, restarts the camera.

RAM BUDGET: nothing worth counting.
"""

import sys
import time

_PAUSE_S = 10  # before a restart after an error, so that a camera that cannot start is not a blinding light


def start(facts=None):
    """Run the agent, then restart the board. Returns only to leave the REPL to a person. Raises what a board without
    working restart raises."""
    hal = None
    facts = facts or {}
    try:
        _once("load_parts")
        from camera_agent.hal import Hal

        hal = Hal()
        hal.adopt_watchdog(facts.get("watchdog"))
        if not run(hal, facts):
            return
    except BaseException as error:  # nothing above this could do anything about it
        _show(error)
        _pause(hal)
    _restart(hal)


def _once(what, *args):
    """Call a function of camera_agent/ready.py."""
    from camera_agent import heap

    try:
        return getattr(heap.load("ready"), what)(*args)
    finally:
        heap.forget("ready")


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


def run(hal, facts=None):
    """Run the agent until it is over. `facts`: what boot.choose() answered. Answers whether the board is to be
    restarted: not when a person has pressed Ctrl-C and it restarts by itself later, or belongs to that person (`debug`,
    or no usable settings)."""
    from camera_agent.agent import IDLE_MS, Agent
    from camera_agent.heap import forget

    agent = None
    try:
        settings = _once("wait_for_settings", hal)
        facts = dict(facts or {}, network=_once("try_network", hal, settings))
        forget("settings")
        forget("tuning")
        agent = Agent(hal, settings, facts)
        agent.start()
        while not agent.is_over:
            if not agent.step():
                hal.sleep_ms(IDLE_MS)
        agent.stop()
        if agent.asleep_s:
            hal.deepsleep(agent.asleep_s)
    except KeyboardInterrupt:
        if agent is not None:
            agent.pause()
        hal.led("off", "off")
        is_theirs = agent is None or agent.settings["debug"]
        comes_back = not is_theirs and hal.comes_back()
        hal.say(
            "fleetd agent: paused, it starts again by itself." if comes_back else "fleetd agent: stopped."
        )
        return not is_theirs and not comes_back
    except Exception as error:
        if agent is None:
            raise
        agent.last_words(error)
        raise
    return True
