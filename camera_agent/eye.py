"""The image sensor, through `csi.CSI` (firmware >= 4.8) or the `sensor` functions (older).

What a model sees must not depend on the firmware: up to 4.8 a picture that is wider than the model's input is
cropped, from 5.0 on it is squeezed. So the sensor itself is given a window with the proportions of the input.

    eye = Eye(ticks_ms)
    eye.configure(settings)                 # `roi` and `frame_size`, looked at with every frame
    eye.prepare(width, height, channels)    # the model's input; takes effect with the next frame
    eye.prepare(width, height, channels, True)    # a window of exactly this size, for the benchmark
    frame = eye.frame()                     # image, or None while exposure settles; OSError, RuntimeError: no picture

RAM BUDGET: the frame buffer is the firmware's; here are only numbers.
"""

from camera_agent.heap import const

_SETTLE_MS = const(2000)  # exposure and white balance, after the sensor was set up
_SIZES = (
    ("QVGA", 320, 240),
    ("VGA", 640, 480),
    ("XGA", 1024, 768),
    ("SXGA", 1280, 1024),
    ("UXGA", 1600, 1200),
)


def window(size, width, height):
    """The largest window with the proportions width : height inside `size`, as (w, h)."""
    most_width, most_height = size
    if width * most_height > height * most_width:
        return most_width, max(1, most_width * height // width)
    return max(1, most_height * width // height), most_height


def placed(size, width, height, roi):
    """The same inside the region of interest, a list [left, top, width, height] in percent: as (x, y, w, h)."""
    left, top, wide, high = [roi[n] * size[n % 2] // 100 for n in range(4)]
    w, h = window((max(1, wide), max(1, high)), width, height)
    return left + (wide - w) // 2, top + (high - h) // 2, w, h


def _holding(width, height):
    """The smallest of the sensor's frames that has room for this window."""
    for size in _SIZES:
        if width <= size[1] and height <= size[2]:
            return size
    raise ValueError("no frame holds %dx%d" % (width, height))


class Eye:
    """See the module's docstring."""

    def __init__(self, ticks_ms):
        self._ticks_ms = ticks_ms
        self._wanted = None  # (width, height, channels, whether the window has exactly this size)
        self._snapshot = None
        self._settled_at = 0
        self._settings = {}
        self._chosen = None  # roi and frame size as they were set up

    def configure(self, settings):
        """The settings, which may change later."""
        self._settings = settings

    def prepare(self, width, height, channels, exact=False):
        """Say what the model wants to see."""
        if (width, height, channels, exact) != self._wanted:
            self._wanted = (width, height, channels, exact)
            self._snapshot = None

    def frame(self):
        """The next picture. After a failure the sensor is set up again."""
        chosen = (self._settings.get("roi"), self._settings.get("frame_size"))
        if self._snapshot is None or chosen != self._chosen:
            self._chosen = chosen
            self._snapshot = None
            self._snapshot = self._set_up()
            self._settled_at = self._ticks_ms() + _SETTLE_MS
        try:
            image = self._snapshot()
        except Exception:
            self._snapshot = None
            raise
        return image if self._ticks_ms() >= self._settled_at else None

    def _set_up(self):
        """Reset the sensor; answers the function that takes a picture."""
        width, height, channels, exact = self._wanted
        if exact:
            chosen = _holding(width, height)
            part = (width, height)
        else:
            roi, size = self._chosen
            chosen = _SIZES[0] if max(width, height) <= _SIZES[0][2] else _SIZES[1]
            for named in _SIZES:
                if named[0] == size:
                    chosen = named
            if roi is None:
                part = window(chosen[1:], width, height)
            else:
                part = placed(chosen[1:], width, height, roi)
        pixels = "RGB565" if channels == 3 else "GRAYSCALE"
        try:
            import csi
        except ImportError:
            csi = None
        if hasattr(csi, "CSI"):  # 4.6 and 4.7 have a csi module without the class
            sensor = csi.CSI()
            sensor.reset()
            sensor.pixformat(getattr(csi, pixels))
            sensor.framesize(getattr(csi, chosen[0]))
            sensor.window(part)
        else:
            import sensor

            sensor.reset()
            sensor.set_pixformat(getattr(sensor, pixels))
            sensor.set_framesize(getattr(sensor, chosen[0]))
            sensor.set_windowing(part)
        return sensor.snapshot
