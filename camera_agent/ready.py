"""What an agent does once, before it runs: loads its parts in the right order, waits for usable settings.

RAM BUDGET: 2 KB of code, forgotten afterwards.
"""

import gc

from camera_agent import heap, led

# On a small heap the parts are loaded one at a time, those with most code first, and the garbage of compiling is
# collected in between; from then on it is collected often, so that what stays lies close together and leaves room in
# one piece. On a large heap collecting takes a quarter of a second each time and helps nobody.
_PARTS = ("protocol", "mqtt", "updater", "link", "vision", "slots", "hal", "agents", "agent")
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
    "proving",
    "netconfig",
    "keyring",
)
_DONE = ("boot", "board", "guard", "decision")  # what has chosen this agent
_ASK_MS = 10_000  # between two looks for a config.json
_SMALL_HEAP = 600_000
_THRESHOLD = 4096  # bytes of garbage


def load_parts():
    """On a small heap: every part, one at a time."""
    if not hasattr(gc, "mem_free") or gc.mem_free() > _SMALL_HEAP:
        return
    if hasattr(gc, "threshold"):
        gc.threshold(_THRESHOLD)
    for name in _DONE:
        heap.forget(name)
    for name in _PARTS + _GUESTS:
        heap.load(name)
        if name in _GUESTS:
            heap.forget(name)
        gc.collect()


def try_network(hal, settings):
    """See netconfig.overlay()."""
    try:
        return heap.load("netconfig").overlay(hal, settings)
    finally:
        heap.forget("netconfig")


def wait_for_settings(hal):
    """The settings; without usable ones the LED says so, the reason is printed, and the file is looked at again."""
    settings = heap.load("settings")  # only the start needs it
    said_at = None
    while True:
        try:
            return settings.load(hal.config_path())
        except settings.SettingsError as error:
            now = hal.ticks_ms()
            if said_at is None or now - said_at >= _ASK_MS:
                said_at = now
                color, pattern = led.STATES["config"]
                hal.led(color, pattern)
                hal.say("fleetd agent: %s (%s)" % (error.reason, error.detail))
        for _ in range(20):
            hal.feed()
            hal.led_step()
            hal.sleep_ms(50)
