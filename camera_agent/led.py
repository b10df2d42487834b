"""What the status LED says: one table of states, which of them is shown, when a pattern is lit, when it is reported.

Kept free for the board and its firmware, so that nobody takes the one for the other: fast green blinking
(bootloader), steady green (power LED), blue double-blinking (firmware without an agent), steady red (STM32: flash
is being written), white and fast colour cycling (firmware panic), slow cyan blinking (AE3: firmware panic).
The LED follows the main loop: while the firmware is busy (a model loads, flash is erased) a blinking LED pauses.

RAM BUDGET: about 4 KB of code and words; nothing grows.
"""

from camera_agent.heap import const

# state: (colour, pattern)  # meaning. A test reads the comments too: docs/cameras.md shows exactly this table.
STATES = {
    "starting": ("cyan", "solid"),  # main.py has begun; storage and the model's slot are being checked
    "running": ("blue", "solid"),  # main.py is running: frames are classified and the broker is connected
    "identify": ("white", "double-blink"),  # somebody asked this camera to show itself
    "config": ("red", "blink"),  # there is no usable config.json
    "no-camera": ("red", "double-blink"),  # the image sensor is missing or gives no pictures
    "safe-mode": ("cyan", "double-blink"),  # it kept failing: only network, broker and updates work
    "crashed": ("red", "blink-fast"),  # the agent failed; the camera restarts within twenty seconds
    "no-network": ("yellow", "double-blink"),  # no WiFi or Ethernet link
    "no-broker": ("yellow", "blink"),  # there is a network, but no connection to the broker
    "updating": ("magenta", "blink"),  # a release is being fetched, unpacked or checked
    "trial": ("magenta", "blink-fast"),  # a new model is on trial
    "no-model": ("magenta", "solid"),  # nothing is classified: this camera has no model yet
    "model-failed": ("magenta", "double-blink"),  # nothing is classified: the model cannot be loaded
    "stopped": ("off", "off"),  # the agent was stopped and nothing runs
}

# What is shown when several are true: the first one.
ORDER = (
    "crashed",
    "config",
    "identify",
    "starting",
    "safe-mode",
    "no-camera",
    "trial",
    "no-network",
    "no-broker",
    "updating",
    "model-failed",
    "no-model",
)

# pattern: ms lit, ms dark, ms lit, ... from the start; a solid LED has nothing to switch
PATTERNS = {
    "blink": (600, 600),
    "blink-fast": (120, 120),
    "double-blink": (150, 150, 150, 900),
}
# which of red, green, blue
COLORS = {
    "off": (0, 0, 0),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "cyan": (0, 1, 1),
    "magenta": (1, 0, 1),
    "yellow": (1, 1, 0),
    "white": (1, 1, 1),
}

SETTLED_MS = const(1500)  # how long a state lasts before it is reported


def choose(true):
    """The state to show when the states in `true` (anything with `in`) hold."""
    for state in ORDER:
        if state in true:
            return state
    return "running"


def is_lit(pattern, ms):
    """Whether an LED with this pattern is lit `ms` after it was set."""
    if pattern not in PATTERNS:
        return pattern != "off"
    steps = PATTERNS[pattern]
    ms %= sum(steps)
    for n in range(len(steps)):
        if ms < steps[n]:
            return n % 2 == 0
        ms -= steps[n]
    return False


class Led:
    """Shows a state at once and reports it as `up/led` when it has lasted."""

    def __init__(self, hal, put):
        """`put(channel, body)`: the outbox's."""
        self._hal = hal
        self._put = put
        self.state = None
        self._sequence = None  # what shows colours one after the other, or None
        self._shown = None
        self._since = 0
        self._reported = None

    def show(self, state, sequence=None):
        """Switch the LED. Showing the same state again changes nothing. `sequence.at(ms)` names the colour."""
        if state != self.state:
            self.state = state
            self._sequence = sequence
            self._since = self._hal.ticks_ms()
            color, pattern = STATES[state]
            self._hal.led(color, pattern)

    def step(self):
        """Animate, and report a change that has lasted."""
        if self._sequence is not None:
            color = self._sequence.at(self._hal.ticks_ms() - self._since)
            if color != self._shown:
                self._shown = color
                self._hal.led(color, "off" if color == "off" else "solid")
        self._hal.led_step()
        state = self.state
        if state == self._reported or self._hal.ticks_ms() - self._since < SETTLED_MS:
            return
        self._reported = state
        color, pattern = STATES[state]
        self._put("led", {"color": color, "pattern": pattern, "reason": state})
