"""Reads what fleetd must know of a .tflite file, and checks what a camera would rely on without looking.

    facts = read_model(data)        # Model, or ModelError

The firmware runs no verifier: an index or a weight buffer that does not fit its tensor makes it read beyond the
model, which can hang the camera until its watchdog bites. So those are checked here, for every tensor and every
operator, on any bytes at all (see `flatbuffer`). What a *board* can run is decided in `preflight`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fleetd.bundles import tflite_ops
from fleetd.bundles.errors import ModelError
from fleetd.bundles.flatbuffer import Source, Table
from fleetd.bundles.tflite_arena import Planned, arena_estimate
from fleetd.protocol import limits

SCHEMA: Final = 3
_TENSORS: Final = 8192
_OPERATORS: Final = 8192
_OPERANDS: Final = 1024
_ENDS: Final = 64  # inputs or outputs of a graph
_CHANNELS: Final = 16384
_DIMENSIONS: Final = 8
_TENSOR_BYTES: Final = 64 * 1024 * 1024
_CUSTOM_NAME: Final = 56  # bytes, so that `custom:<name>` fits a Word of the manifest

# name and bits per element, by code
_TYPES: Final = {
    0: ("float32", 32),
    1: ("float16", 16),
    2: ("int32", 32),
    3: ("uint8", 8),
    4: ("int64", 64),
    5: ("string", 0),
    6: ("bool", 8),
    7: ("int16", 16),
    8: ("complex64", 64),
    9: ("int8", 8),
    10: ("float64", 64),
    11: ("complex128", 128),
    12: ("uint64", 64),
    13: ("resource", 0),
    14: ("variant", 0),
    15: ("uint32", 32),
    16: ("uint16", 16),
    17: ("int4", 4),
    18: ("bfloat16", 16),
    19: ("int2", 2),
}
# Operators that only pass a classifier's scores on.
_PASS_ON: Final = frozenset({"DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
_WITH_WEIGHTS: Final = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor. `scale` and `zero_point` are those of its first channel, 0 when it is not quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int  # bytes
    constant: bool
    variable: bool
    scale: float
    zero_point: int
    channels: int  # how many scales it has


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the main graph; `name` starts with `custom:` when it is not a builtin one."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """What a .tflite file says of itself. `ops` are names, sorted, of all graphs."""

    size: int
    description: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ops: tuple[str, ...]
    last_ops: tuple[str, ...]  # per output: the operator whose values it carries, "" when there is none
    hybrid_ops: tuple[str, ...]  # float activations with integer weights, which cameras cannot run
    subgraphs: int
    operators: int
    tensors: int
    weight_bytes: int
    metadata: tuple[str, ...]
    arena_estimate: int  # bytes; see tflite_arena


@dataclass(frozen=True, slots=True)
class _Graph:
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_model(data: bytes) -> Model:
    """The facts of this model. Raises ModelError for anything that is not an intact .tflite of schema 3."""
    if len(data) > limits.CONTENT_BYTES:
        raise ModelError(f"The model has {len(data)} bytes; at most {limits.CONTENT_BYTES} are accepted.")
    if len(data) < 16:
        raise ModelError(f"The model file has {len(data)} bytes: it is empty or cut off. Export it again.")
    if data[4:8] != b"TFL3":
        raise ModelError("This is not a TensorFlow Lite model (the mark TFL3 is missing). Export it again.")
    root = Source(data).root()
    version = root.integer(0, "I")
    if version != SCHEMA:
        raise ModelError(f"The model has schema version {version}; cameras read version {SCHEMA}.")
    buffers = _buffers(root)
    codes = [_operator_name(code) for code in root.tables(1, 1024)]
    graphs = [_graph(table, codes, buffers) for table in root.tables(2, 64)]
    if not graphs:
        raise ModelError("The model has no graph in it. Export it again.")
    main = graphs[0]
    if not main.inputs or not main.outputs:
        raise ModelError("The model has no input or no output. Export it again.")
    return Model(
        size=len(data),
        description=root.text(3, 4096),
        inputs=tuple(main.tensors[n] for n in main.inputs),
        outputs=tuple(main.tensors[n] for n in main.outputs),
        ops=tuple(sorted({operator.name for graph in graphs for operator in graph.operators})),
        last_ops=_last_ops(main),
        hybrid_ops=tuple(sorted({name for graph in graphs for name in _hybrids(graph)})),
        subgraphs=len(graphs),
        operators=sum(len(graph.operators) for graph in graphs),
        tensors=sum(len(graph.tensors) for graph in graphs),
        weight_bytes=sum(buffers),
        metadata=tuple(entry.text(0, 256) for entry in root.tables(6, 256)),
        arena_estimate=_arena(main),
    )


def _buffers(root: Table) -> list[int]:
    """The size in bytes of every buffer. Data behind the flatbuffer (files over 2 GB) is refused."""
    sizes = []
    for buffer in root.tables(4, 2 * _TENSORS):
        if buffer.integer(1, "Q") > 1 or buffer.integer(2, "Q") > 1:
            raise ModelError("The model keeps weights outside its flatbuffer, which cameras cannot read.")
        start, size = buffer.span(0)
        if size and start % 4:
            raise ModelError("The model file is damaged: weights in it are not aligned.", at=start)
        sizes.append(size)
    return sizes


def _operator_name(code: Table) -> str:
    number = max(code.integer(0, "b"), code.integer(3, "i"))
    if number == tflite_ops.CUSTOM:
        custom = code.text(1, _CUSTOM_NAME)
        if not custom.isprintable() or not custom:
            raise ModelError("The model has a custom operator without a proper name.")
        return f"custom:{custom}"
    known = tflite_ops.name(number)
    if known is None:
        raise ModelError(
            f"The model uses operator {number}, which the schema does not have.", operator=number
        )
    return known


def _graph(table: Table, codes: Sequence[str], buffers: Sequence[int]) -> _Graph:
    tensors = tuple(_tensor(entry, buffers) for entry in table.tables(0, _TENSORS))
    operators = tuple(_operator(entry, codes, len(tensors)) for entry in table.tables(3, _OPERATORS))
    inputs, outputs = table.integers(1, "i", _ENDS), table.integers(2, "i", _ENDS)
    _check_indexes((*inputs, *outputs), len(tensors))
    return _Graph(tensors, operators, inputs, outputs)


def _operator(table: Table, codes: Sequence[str], tensors: int) -> Operator:
    code = table.integer(0, "I")
    if code >= len(codes):
        raise ModelError("The model file is damaged: an operator has no code.", code=code)
    inputs, outputs = table.integers(1, "i", _OPERANDS), table.integers(2, "i", _OPERANDS)
    intermediates = table.integers(8, "i", _OPERANDS)
    _check_indexes([n for n in inputs if n != -1], tensors)  # -1: an optional input that is not there
    _check_indexes((*outputs, *intermediates), tensors)
    table.table(4)  # builtin options: read on the camera, so its frame at least must be sound
    table.table(12)
    table.span(5)  # custom options
    return Operator(codes[code], inputs, outputs)


def _check_indexes(indexes: Sequence[int], tensors: int) -> None:
    if any(not 0 <= n < tensors for n in indexes):
        raise ModelError("The model file is damaged: it refers to a tensor that is not there.")


def _tensor(table: Table, buffers: Sequence[int]) -> Tensor:
    shape = table.integers(0, "i", _DIMENSIONS)
    kind = table.integer(1, "b")
    if kind not in _TYPES:
        raise ModelError(f"The model has a tensor of an unknown type ({kind}).", type=kind)
    dtype, bits = _TYPES[kind]
    if any(dimension < 0 for dimension in shape):
        raise ModelError("The model file is damaged: a tensor has a negative dimension.", shape=shape)
    size = (math.prod(shape) * bits + 7) // 8
    if size > _TENSOR_BYTES:
        raise ModelError("The model has a tensor larger than any camera's memory.", shape=shape, size=size)
    if table.has(6):
        raise ModelError(
            "The model has sparse weights, which cameras cannot run. Convert it without sparsity."
        )
    buffer = table.integer(2, "I")
    if buffer >= len(buffers):
        raise ModelError("The model file is damaged: a tensor has no buffer.", buffer=buffer)
    constant = buffers[buffer] > 0
    if constant and bits and buffers[buffer] != size:
        raise ModelError(
            "The model file is damaged: a tensor and its weights differ in size.",
            shape=shape,
            size=size,
            weights=buffers[buffer],
        )
    scales, zero_points = _quantisation(table.table(4), shape)
    return Tensor(
        name=table.text(3, 4096),
        shape=shape,
        dtype=dtype,
        size=size,
        constant=constant,
        variable=bool(table.integer(5, "B")),
        scale=scales[0] if scales else 0.0,
        zero_point=zero_points[0] if zero_points else 0,
        channels=len(scales),
    )


def _quantisation(table: Table | None, shape: Sequence[int]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if table is None:
        return (), ()
    scales, zero_points = table.floats(2, _CHANNELS), table.integers(3, "q", _CHANNELS)
    dimension = table.integer(6, "i")
    if any(not math.isfinite(scale) or scale < 0 for scale in scales):
        raise ModelError("The model file is damaged: a quantisation scale is not a positive number.")
    if scales and zero_points and len(scales) != len(zero_points):
        raise ModelError("The model file is damaged: quantisation scales and zero points differ in number.")
    if len(scales) > 1 and (not 0 <= dimension < len(shape) or shape[dimension] != len(scales)):
        raise ModelError("The model file is damaged: quantisation does not fit its tensor.", shape=shape)
    if any(not -(2**31) <= zero_point < 2**31 for zero_point in zero_points):
        raise ModelError("The model file is damaged: a zero point is not a 32-bit number.")
    return scales, zero_points


def _last_ops(graph: _Graph) -> tuple[str, ...]:
    """Per output the operator that computed its values, looking through those that only pass them on."""
    writers = {n: operator for operator in graph.operators for n in operator.outputs}
    return tuple(_writer(tensor, writers) for tensor in graph.outputs)


def _writer(tensor: int, writers: Mapping[int, Operator]) -> str:
    for _ in writers:  # a damaged graph may run in a circle
        operator = writers.get(tensor)
        if operator is None:
            return ""
        if operator.name not in _PASS_ON or not operator.inputs:
            return operator.name
        tensor = operator.inputs[0]
    return ""


def _hybrids(graph: _Graph) -> list[str]:
    return [
        operator.name
        for operator in graph.operators
        if operator.name in _WITH_WEIGHTS
        and len(operator.inputs) > 1
        and -1 not in operator.inputs[:2]
        and {graph.tensors[n].dtype == "float32" for n in operator.inputs[:2]} == {True, False}
    ]


def _arena(graph: _Graph) -> int:
    return arena_estimate(
        [
            Planned(
                size=0 if tensor.constant else tensor.size,
                variable=tensor.variable,
                channels=tensor.channels,
            )
            for tensor in graph.tensors
        ],
        [(operator.inputs, operator.outputs) for operator in graph.operators],
        graph.inputs,
        graph.outputs,
    )
