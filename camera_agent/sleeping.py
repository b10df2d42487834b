"""Duty cycle: awake for `awake_s`, then deep sleep for `sleep_s`, which ends in a restart.

    consider(agent) -> seconds to sleep now, 0: not now; agent.sleep_problem says why this board cannot, or None

Messages without a receipt are waited for, but not longer than twice `awake_s` more: without a network they are lost in
deep sleep, unless there is a spool. fleetd learns with the last status for how long the camera sleeps.

RAM BUDGET: 1 KB of code, loaded when the settings ask for sleep.
"""


def consider(agent):
    """Whether the camera has been awake for long enough and nobody needs it."""
    if (
        agent.agents.is_busy
        or agent.agents.is_safe
        or agent.pictures.is_busy()
        or agent.commands.is_identifying()
    ):
        return 0
    agent.sleep_problem = problem(agent.hal)
    if agent.sleep_problem or not is_due(agent.hal, agent.settings, len(agent.outbox)):
        return 0
    return agent.settings["sleep_s"]


def problem(hal):
    """Why this board cannot sleep as it is, or None."""
    if not hal.can_sleep():
        return "sleep-unsupported"
    # The watchdog of STM32 boards goes on in deep sleep and would wake them every half a minute.
    return "sleep-needs-no-watchdog" if hal.has_watchdog() and hal.watchdog_bites_asleep() else None


def is_due(hal, settings, waiting):
    """Whether the camera has been awake for long enough."""
    awake_ms = hal.ticks_ms()  # the clock begins with the start
    most = 1000 * settings["awake_s"]
    return awake_ms >= most and (not waiting or awake_ms >= 3 * most)
