"""Measures how fast this camera classifies pictures of several sizes, on command.

    bench, reason = begin(hal, vision, put, is_busy, id_, args)    # reason: why not; bench is None then
    bench.step() -> bool         one picture at most; False when it is over: the reply is in the outbox

args: `sizes`, edges of square pictures in pixels, and `frames` of each. The model stays the one that is in use; the
sensor gets another window for each size and at the end its old one. The link has its turn between two pictures, so
nothing is held up for longer than one of them (or the sensor takes to be set up). Vision has to pause meanwhile.

What a picture costs: `capture_ms` and `inference_ms` are mean values, `total_ms` both, `slowest_ms` the worst total;
`fps` is how many there were in a second with everything the agent does in between. The first one is not counted.

RAM BUDGET: 4 KB of code, loaded when it is asked for; a few integers per size.
"""

from camera_agent.heap import const

SIZES = (240, 320, 640, 1024)
SIZES_MAX = const(8)
EDGE_MIN = const(32)
EDGE_MAX = const(1600)
FRAMES = const(20)
FRAMES_MAX = const(200)
_PATIENCE_MS = const(15_000)  # for the first picture of a size: the sensor settles for two seconds
_SIZE_MS = const(60_000)  # a size ends after this, with what it has
_ERROR_CHARS = const(120)


def begin(hal, vision, put, is_busy, id_, args):
    """(Bench, None), or (None, why it cannot be done now)."""
    sizes = args.get("sizes", SIZES)
    frames = args.get("frames", FRAMES)
    reason = _refusal(vision, is_busy, sizes, frames)
    if reason is not None:
        return None, reason
    vision.flush()
    return Bench(hal, vision, put, is_busy, id_, list(sizes), frames), None


def _refusal(vision, is_busy, sizes, frames):
    if type(sizes) not in (list, tuple) or not 0 < len(sizes) <= SIZES_MAX:
        return "bad-arguments"
    for size in sizes:
        if type(size) is not int or not EDGE_MIN <= size <= EDGE_MAX:
            return "bad-arguments"
    if type(frames) is not int or not 0 < frames <= FRAMES_MAX:
        return "bad-arguments"
    if is_busy():
        return "busy"
    if vision.model is None:
        return "no-model"
    return None


class Bench:
    """One benchmark under way. See the module's docstring."""

    def __init__(self, hal, vision, put, is_busy, id_, sizes, frames):
        self._hal = hal
        self._vision = vision
        self._put = put
        self._is_busy = is_busy
        self._id = id_
        self._model = vision.model
        self._todo = sizes
        self._wanted = frames
        self._done = []
        self._size = None  # the one at hand
        self._began = 0  # when it was taken in hand, in ms
        self._frames = 0  # counted pictures, and microseconds they took
        self._capture = 0
        self._inference = 0
        self._slowest = 0
        self._counted_from = 0

    def step(self):
        """Take one picture. False when it is over."""
        if self._vision.model is not self._model or self._is_busy():
            return self._end("interrupted")
        if self._size is None and not self._todo:
            return self._end(None)
        try:
            if self._size is None:
                self._start_size(self._todo.pop(0))
            self._take()
        except Exception as error:  # drivers and engines raise anything: this size does not work, others may
            self._done.append({"size": self._size, "error": _told(error)})
            self._size = None
        return True

    def _start_size(self, size):
        self._size = size
        self._frames = -1  # the first picture is not counted
        self._capture = self._inference = self._slowest = 0
        self._began = self._hal.ticks_ms()
        self._counted_from = 0
        self._hal.prepare(size, size, self._model.input_shape[2], True)

    def _take(self):
        began = self._now()
        frame = self._hal.capture()
        captured = self._now()
        waited = self._hal.ticks_ms() - self._began
        if frame is None:  # exposure settles
            if waited > _PATIENCE_MS:
                raise OSError("no picture within %d s" % (_PATIENCE_MS // 1000))
            return
        self._model.classify(frame)
        ended = self._now()
        self._frames += 1
        if not self._frames:
            self._counted_from = ended
            return
        self._capture += captured - began
        self._inference += ended - captured
        self._slowest = max(self._slowest, ended - began)
        if self._frames >= self._wanted or waited > _SIZE_MS:
            self._end_size(ended)

    def _end_size(self, ended):
        count = self._frames
        each = 1000 * count
        self._done.append(
            {
                "size": self._size,
                "frames": count,
                "fps": round(1_000_000 * count / max(1, ended - self._counted_from), 2),
                "capture_ms": round(self._capture / each, 2),
                "inference_ms": round(self._inference / each, 2),
                "total_ms": round((self._capture + self._inference) / each, 2),
                "slowest_ms": round(self._slowest / 1000, 2),
            }
        )
        self._size = None

    def _now(self):
        """Microseconds, as fine as the board has them."""
        if hasattr(self._hal, "ticks_us"):
            return self._hal.ticks_us()
        return 1000 * self._hal.ticks_ms()

    def _end(self, reason):
        """Give the sensor back and reply."""
        height, width, channels = self._model.input_shape
        if self._vision.model is self._model:
            self._hal.prepare(width, height, channels)
        body = {"id": self._id, "ok": reason is None}
        if reason is None:
            body["data"] = {"input": [height, width, channels], "sizes": self._done}
        else:
            body["reason"] = reason
        self._put("reply/benchmark", body)
        return False


def _told(error):
    return ("%s: %s" % (type(error).__name__, error))[:_ERROR_CHARS]
