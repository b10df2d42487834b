"""`csi` of firmware 4.8: a sensor whose pictures are only sizes. It insists on being set up in order."""

RGB565 = "RGB565"
GRAYSCALE = "GRAYSCALE"
QVGA = (320, 240)
VGA = (640, 480)


class Image:
    """A picture without pixels: the camera code hands it on and never looks inside."""

    def __init__(self, width, height, pixels):
        self.width = width
        self.height = height
        self.pixels = pixels


class CSI:
    def __init__(self):
        self._pixels = None
        self._size = None

    def reset(self):
        self._pixels = None
        self._size = None

    def pixformat(self, pixels):
        assert pixels in (RGB565, GRAYSCALE)
        self._pixels = pixels

    def framesize(self, size):
        self._size = size

    def window(self, size):
        assert size[0] <= self._size[0]
        assert size[1] <= self._size[1]
        self._size = size

    def snapshot(self):
        if self._pixels is None or self._size is None:
            raise RuntimeError("Sensor control failed.")
        return Image(self._size[0], self._size[1], self._pixels)
