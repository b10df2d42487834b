"""Small .tflite files of any kind, made with the schema's own Python, and where real ones are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"
LABELS = ("cat", "dog", "fox")


def real(path: str) -> Path:
    """A real export kept outside the repository; the test is skipped where there is none."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"{path} is not here: real exports lie beside the repository, in ../shared/data")
    return found


@dataclass
class Plan:
    """A classifier: flatten, one fully connected layer, softmax. Change what a test is about."""

    height: int = 8
    width: int = 8
    channels: int = 3
    classes: int = 3
    dtype: str = "INT8"
    scale: float = 1 / 255
    zero_point: int = -128
    output_shape: Sequence[int] | None = None
    output_dtype: str = "INT8"
    output_scale: float = 1 / 256
    output_zero_point: int = -128
    operator: str = "FULLY_CONNECTED"
    custom: str | None = None
    last: str = "SOFTMAX"
    weights: str = "INT8"


def make(plan: Plan | None = None, change: Callable[[Any], None] | None = None) -> bytes:
    """The .tflite for this plan; `change` may do anything to the schema's object tree first."""
    plan = plan or Plan()
    pixels = plan.height * plan.width * plan.channels
    weight_bytes = {"INT8": 1, "FLOAT32": 4}[plan.weights]
    model = schema.ModelT()
    model.version = 3
    model.description = "made for a test"
    model.buffers = [schema.BufferT() for _ in range(3)]
    model.buffers[1].data = bytes(
        (7 * n + n // 251) % 251 for n in range(pixels * plan.classes * weight_bytes)
    )
    model.buffers[2].data = bytes(4 * plan.classes)
    model.operatorCodes = [
        _code(plan.custom or plan.operator, custom=plan.custom is not None),
        _code(plan.last),
    ]
    graph = schema.SubGraphT()
    shape = [1, plan.height, plan.width, plan.channels]
    graph.tensors = [
        _tensor("picture", shape, plan.dtype, plan.scale, plan.zero_point),
        _tensor("weights", [plan.classes, pixels], plan.weights, 0.01, 0, buffer=1),
        _tensor("bias", [plan.classes], "INT32", 0.01, 0, buffer=2),
        _tensor("logits", [1, plan.classes], plan.output_dtype, 0.1, 0),
        _tensor(
            "scores",
            list(plan.output_shape or [1, plan.classes]),
            plan.output_dtype,
            plan.output_scale,
            plan.output_zero_point,
        ),
    ]
    graph.inputs, graph.outputs = [0], [4]
    graph.operators = [_operator(0, [0, 1, 2], [3]), _operator(1, [3], [4])]
    model.subgraphs = [graph]
    if change:
        change(model)
    builder = schema.flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(name: str, *, custom: bool = False) -> Any:
    code = schema.OperatorCodeT()
    number = schema.BuiltinOperator.CUSTOM if custom else getattr(schema.BuiltinOperator, name)
    code.builtinCode = number
    code.deprecatedBuiltinCode = min(number, 127)
    if custom:
        code.customCode = name
    return code


def _tensor(
    name: str, shape: Sequence[int], dtype: str, scale: float, zero_point: int, buffer: int = 0
) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, list(shape), buffer
    tensor.type = getattr(schema.TensorType, dtype)
    if dtype != "FLOAT32":
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
    return tensor


def _operator(code: int, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, list(inputs), list(outputs)
    return operator
