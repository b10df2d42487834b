"""Commands from fleetd: each is carried out at most once and only while it is good.

    commands = Commands(hal, put, is_busy)
    commands.on_command(name, message)     # what protocol.parse_command() answered
    commands.is_identifying()              # whether the LED should show this camera
    commands.restart_at                    # ms when the camera shall restart, or None
    commands.restart_reply                 # seq of the reply to it
    commands.benchmark, .snapshot          # set by the agent: f(id, args) -> why not, or None; it replies later

Once: the ids of the last commands are remembered, the one of a restart also over that restart. Good: a command
says when fleetd sent it (`t`) and for how long it counts (`ttl`). With a trusted clock that is compared with the
time. Without one, fleetd's time is known at least: the newest `t` seen, plus what has passed since.

RAM BUDGET: 16 ids of at most 64 characters.
"""

from camera_agent.heap import const

_IDS = const(16)
_IDENTIFY_S = const(30)
_IDENTIFY_MAX_S = const(600)
_RESTART_MS = const(5000)  # for the reply to get its receipt
_SKEW_S = const(5)  # two clocks are never the same


class Commands:
    """See the module's docstring."""

    def __init__(self, hal, put, is_busy):
        """`put(channel, body)`: the outbox's; `is_busy()`: whether a restart would do harm now."""
        self._hal = hal
        self._put = put
        self._is_busy = is_busy
        self._done = []
        kept = hal.kept()
        if kept:
            self._done.append(kept)
        self._ahead = None  # at least fleetd's clock minus ours, in seconds
        self._identify_until = 0
        self.restart_at = None
        self.restart_reply = 0
        self.benchmark = None
        self.snapshot = None

    def on_command(self, name, message):
        """Carry it out and reply. A command that was done before is not even answered: its reply is on its way."""
        id_ = message["id"]
        if id_ in self._done:
            return
        self._done.append(id_)
        if len(self._done) > _IDS:
            self._done.pop(0)
        if self._is_expired(message["t"], message["ttl"]):
            self._reply(name, id_, "expired")
        elif name == "identify":
            self._identify(message["args"])
            self._reply(name, id_)
        elif name == "reboot":
            self._reboot(name, id_)
        elif name in ("benchmark", "snapshot") and getattr(self, name) is not None:
            reason = getattr(self, name)(id_, message["args"])
            if reason is not None:
                self._reply(name, id_, reason)
        else:
            self._reply(name, id_, "unknown-command")

    def is_identifying(self):
        """Whether somebody wants to see this camera."""
        return self._hal.ticks_ms() < self._identify_until

    def _is_expired(self, sent, ttl):
        unix = self._hal.unix()
        if unix is None:
            here = self._hal.ticks_ms() / 1000
            if self._ahead is None or sent - here > self._ahead:
                self._ahead = sent - here
            unix = here + self._ahead
        return unix > sent + ttl + _SKEW_S

    def _identify(self, args):
        seconds = args.get("seconds", _IDENTIFY_S)
        if type(seconds) is not int or not 0 <= seconds <= _IDENTIFY_MAX_S:
            seconds = _IDENTIFY_S
        self._identify_until = self._hal.ticks_ms() + 1000 * seconds

    def _reboot(self, name, id_):
        if self._is_busy():
            self._reply(name, id_, "busy")
            return
        try:
            self._hal.keep(id_)
        except OSError:
            pass  # broken storage may be why it is asked for; twice is better than never
        self.restart_reply = self._reply(name, id_)
        self.restart_at = self._hal.ticks_ms() + _RESTART_MS

    def _reply(self, name, id_, reason=None):
        body = {"id": id_, "ok": reason is None}
        if reason:
            body["reason"] = reason
        return self._put("reply/" + name, body)
