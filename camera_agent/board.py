"""What differs from board to board and is needed before anything else: storage, why it started, the watchdog.

The rest of the hardware is in camera_agent/hal.py, network classes in camera_agent/netif.py. What has to be told apart
is told apart by what is there, or by omv.arch(), never by omv.board_type(): four boards call themselves "H7".

RAM BUDGET: 1 KB of code, forgotten after the start.
"""

import os

from camera_agent.heap import const
from camera_agent.regions import exists

_STM32_WATCHDOG_MS = const(32_000)  # its counter ends at 32.7 s
_ONE_SECTOR = const(131_072)  # H7, M7, M4: their whole /flash is one erase block, or less
# Names differ between ports, and so do the numbers behind them; numbers count only where a port has no name for them.
_CAUSES = (
    ("PWRON_RESET", 1, "power-on"),
    ("HARD_RESET", 2, "hard"),
    ("WDT_RESET", 3, "watchdog"),
    ("DEEPSLEEP_RESET", 4, "deepsleep"),
    ("SOFT_RESET", 5, "soft"),
    ("BROWN_OUT_RESET", 6, "brown-out"),
)


def reset_word(machine):
    """The contract's word for machine.reset_cause()."""
    if not hasattr(machine, "reset_cause"):
        return "unknown"
    cause = machine.reset_cause()
    for name, _number, word in _CAUSES:
        if getattr(machine, name, None) == cause:
            return word
    for name, number, word in _CAUSES:
        if number == cause and not hasattr(machine, name):
            return word
    return "unknown"


def open_watchdog(machine, timeout_ms):
    """The hardware's watchdog, running from now on; None where there is none (AE3)."""
    if not hasattr(machine, "WDT"):
        return None
    try:
        return machine.WDT(timeout=timeout_ms)
    except ValueError:
        return machine.WDT(timeout=_STM32_WATCHDOG_MS)


def storage():
    """The SD card when one is mounted, else internal flash."""
    for path in ("/sdcard", "/flash"):
        if exists(path):
            return path
    return os.getcwd()


def is_one_sector(path):
    """Whether a volume is a single erase block: any write there risks everything on it."""
    try:
        stat = os.statvfs(path)
    except OSError:
        return False
    return 0 < stat[1] * stat[2] <= _ONE_SECTOR
