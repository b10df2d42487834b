"""Models on the desk: LiteRT stands where the firmware's engine is. One interpreter per model, shared by all.

LiteRT's reference kernels give the same int8 outputs as the kernels on the cameras; its fast ones do not.
"""

import hashlib
import threading
from typing import Any

from camera_agent.engine import model_file
from camera_agent.models import ModelError
from fleetd.simulator.errors import SimulatorUnavailableError


class Engine:
    """A loaded model that several cameras use in turn. Pictures go in as OpenMV puts them in."""

    def __init__(self, data: bytes) -> None:
        try:
            import numpy as np  # noqa: PLC0415  # an extra
            from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415
        except ImportError as error:
            raise SimulatorUnavailableError from error
        self._np = np
        self._lock = threading.Lock()
        try:
            self._interpreter = Interpreter(
                model_content=data, num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError("model-load-failed", str(error)[:200]) from error
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        shape = [int(size) for size in self._input["shape"]]
        if len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
            raise ModelError("model-load-failed", f"its input is no single picture: {shape}")
        self.input_shape = (shape[1], shape[2], shape[3])
        self.output_len = int(self._output["shape"][-1])

    def classify(self, picture: Any) -> list[float]:
        """One score per class. `picture`: uint8 of the input's shape; the camera's RGB565 costs some bits."""
        seen = self._np.stack([picture[..., 0] & 0xF8, picture[..., 1] & 0xFC, picture[..., 2] & 0xF8], -1)
        return self._run(self._quantised(seen)[None])

    def tensor(self, picture: Any) -> bytes:
        """The bytes of the input tensor for a picture: uint8 of the input's shape."""
        return bytes(self._quantised(picture).tobytes())

    def _quantised(self, seen: Any) -> Any:
        """Pixels as the firmware puts them into the input, whatever the model's scale is."""
        kind = self._input["dtype"]
        if kind == self._np.int8:
            return (seen.astype("int16") - 128).astype("int8")
        return seen if kind == self._np.uint8 else seen.astype("float32") / 255

    def answer(self, tensor: bytes) -> list[float]:
        """One score per class for an input tensor of these bytes. ValueError when it has another size."""
        return self._run(self._np.frombuffer(tensor, self._input["dtype"]).reshape(self._input["shape"]))

    @property
    def input_bytes(self) -> int:
        """Size of the input tensor."""
        height, width, channels = self.input_shape
        return height * width * channels * int(self._np.dtype(self._input["dtype"]).itemsize)

    def _run(self, data: Any) -> list[float]:
        with self._lock:
            self._interpreter.set_tensor(self._input["index"], data)
            self._interpreter.invoke()
            raw = self._interpreter.get_tensor(self._output["index"])[0].copy()
        scale, zero = self._output["quantization"]
        scores = (raw.astype("float32") - zero) * scale if scale else raw
        return [float(score) for score in scores]


_engines: dict[str, Engine] = {}
_engines_lock = threading.Lock()


def load_engine(content: Any, files: Any) -> Engine:
    """The engine for the model in a slot's content; ModelError when it cannot be loaded."""
    entry = model_file(files)
    data = bytearray(entry["size"])
    if content.readinto(entry["offset"], memoryview(data)) != entry["size"]:
        raise ModelError("storage-error", "the slot is shorter than it was")
    digest = hashlib.sha256(data).hexdigest()
    with _engines_lock:
        if digest not in _engines:
            _engines[digest] = Engine(bytes(data))
        return _engines[digest]
