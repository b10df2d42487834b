"""Which pictures are sent: one on command, and by itself one of what the model is not sure about.

    pictures = Pictures(hal, settings, outbox)
    pictures.vision = vision
    pictures.start(id_, args)              # a command; why not, or None; it is answered later
    pictures.on_frame(frame, label, score) # vision's: every classified frame
    pictures.step()

Taking and sending one is camera_agent/snapshot.py, loaded for it. One at a time.

RAM BUDGET: under 1 KB, and the times of the last day's pictures.
"""

from camera_agent.heap import const, forget, load

_DAY_MS = const(86_400_000)
_APART_MS = const(60_000)


class Pictures:
    """See the module's docstring."""

    def __init__(self, hal, settings, outbox):
        self._hal = hal
        self._settings = settings
        self._outbox = outbox
        self._snap = None
        self._times = []
        self.vision = None

    def start(self, id_, args, why="command"):
        """Take a picture. Answers why that cannot be, or None."""
        if self._snap is not None:
            return "busy"
        self._snap = load("snapshot").Snapshot(self._hal, self.vision, self._outbox, why, id_, args)
        return None

    def is_busy(self):
        """Whether one is under way."""
        return self._snap is not None

    def on_frame(self, frame, label, score):
        """A frame was classified: the one that is waited for, or one worth sending by itself."""
        below = self._settings["snapshot_below"]
        if self._snap is None and below is not None and score < below and self._may():
            self.start(None, None, "low-confidence")
        if self._snap is not None:
            self._snap.take(frame, label, score)

    def _may(self):
        """Whether the day's budget allows another one; if so it is counted."""
        now = self._hal.ticks_ms()
        self._times = [at for at in self._times if now - at < _DAY_MS]
        if len(self._times) >= self._settings["snapshots_per_day"] or self._outbox.is_crowded():
            return False
        if self._times and now - self._times[-1] < _APART_MS:
            return False
        self._times.append(now)
        return True

    def step(self):
        """A bounded piece of what is under way."""
        try:
            if self._snap is None or self._snap.step():
                return False
        except Exception:
            self._snap = None
            raise
        self._snap = None
        forget("snapshot")
        return False
