"""`machine` of OpenMV for the unix port: LEDs print, the watchdog bites, a reset ends the process.

FAKE_RESET_CAUSE (a number of this module) says why the board started.
"""

import os
import sys
import time

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

EXIT_RESET = 64  # the process ended because the board was restarted
EXIT_WATCHDOG = 65  # ... or because nobody fed the watchdog


def reset_cause():
    return int(os.getenv("FAKE_RESET_CAUSE") or PWRON_RESET)


def unique_id():
    return b"\x00\x11\x22\x33\x44\x55\x66\x77"


def reset():
    print("machine: reset")
    sys.exit(EXIT_RESET)


class LED:
    def __init__(self, name):
        if name not in ("LED_RED", "LED_GREEN", "LED_BLUE"):
            raise ValueError("no such LED")
        self._name = name
        self._is_on = False

    def _set(self, is_on):
        if is_on != self._is_on:
            self._is_on = is_on
            print("led:", self._name, "on" if is_on else "off")

    def on(self):
        self._set(True)

    def off(self):
        self._set(False)


class WDT:
    """Notices at the next feed that it came too late; a test's own timeout covers a feed that never comes."""

    def __init__(self, id=0, timeout=5000):
        self._timeout = timeout
        self._fed = time.ticks_ms()

    def feed(self):
        now = time.ticks_ms()
        waited = time.ticks_diff(now, self._fed)
        self._fed = now
        if waited > self._timeout:
            print("machine: the watchdog was not fed for", waited, "ms")
            sys.exit(EXIT_WATCHDOG)
