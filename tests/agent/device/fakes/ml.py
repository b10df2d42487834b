"""`ml`: an engine that reads every byte of a model and answers always the same scores, other ones for other bytes.

The best of the three classes is SHA-256(model)[1] % 3. As in the firmware a flatbuffer is hardly checked.
"""

import hashlib

import csi

_CLASSES = 3


class _Array:
    """As much of a ulab array as is used."""

    def __init__(self, values):
        self._values = values

    def flatten(self):
        return self

    def tolist(self):
        return list(self._values)


class Model:
    def __init__(self, path):
        digest = hashlib.sha256()
        piece = memoryview(bytearray(512))
        with open(path, "rb") as file:
            count = file.readinto(piece)
            if count < 8 or bytes(piece[4:8]) != b"TFL3":
                raise ValueError("Unsupported model schema")
            while count:
                digest.update(piece[:count])
                count = file.readinto(piece)
        mark = digest.digest()
        best = mark[1] % _CLASSES
        self._scores = [0.75 if n == best else 0.125 for n in range(_CLASSES)]
        self.input_shape = [(1, 96, 96, 3)]
        self.output_shape = [(1, _CLASSES)]

    def predict(self, inputs):
        assert len(inputs) == 1
        if callable(inputs[0]):  # it fills the input tensor itself
            inputs[0](bytearray(96 * 96 * 3), (1, 96, 96, 3), ord("b"))
        else:
            assert isinstance(inputs[0], csi.Image)
            assert inputs[0].pixels == csi.RGB565
        return [_Array(self._scores)]
