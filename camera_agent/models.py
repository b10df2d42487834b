"""A model that is loaded into the firmware's engine: what vision asks. How it gets there: camera_agent/engine.py.

    scores = model.classify(image)                       # list of floats, one per label
    scores = model.answer(fill)                          # ... for an input that fill(view) writes byte by byte
    model.input_shape, model.output_len
    model.close()                                        # before the next one is loaded

RAM BUDGET: 1 KB of code; what a model takes is said in camera_agent/engine.py.
"""

import gc

from camera_agent.errors import AgentError

MOUNT = "/fleet_rom"


class ModelError(AgentError):
    """The model cannot be used. `reason` is a word of `up/update`, `detail` says more."""


class Model:
    """A loaded classifier."""

    def __init__(self, net, input_shape, output_len, buffer=None):
        """`input_shape`: (height, width, channels); `output_len`: classes; `buffer`: the mounted image, which has to
        live as long as the model."""
        self._net = net
        self._buffer = buffer
        self.input_shape = input_shape
        self.output_len = output_len

    def classify(self, frame):
        """One score per class, as the model gives them."""
        return self._net.predict([frame])[0].flatten().tolist()

    def answer(self, fill):
        """The same for an input tensor that `fill(view)` writes."""

        def take(buffer, _shape, _dtype):
            fill(memoryview(buffer))

        return self._net.predict([take])[0].flatten().tolist()

    def close(self):
        """Give back its memory."""
        self._net = None
        mounted = self._buffer is not None
        self._buffer = None
        if mounted:
            unmount()
        gc.collect()


def unmount():
    """Let go of the image that a model was used from, if there is one."""
    import vfs

    try:
        vfs.umount(MOUNT)
    except OSError:
        pass  # it was not mounted
