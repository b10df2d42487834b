import copy
import struct
import time
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from fleetd.bundles import tflite_ops
from fleetd.bundles.errors import ModelError
from fleetd.bundles.tflite import read_model
from tests.unit.bundles.models import Plan, make, real

SMALL = make()

# Arena of the reference engine (tflite-micro, 64-bit), measured.
MEASURED = {
    "demo-model/v1": 54464,
    "models/abdulrehman-cls/v1": 105984,
    "models/aura-glasses/v1": 33872,
    "models/blimp-fomo/v1": 239952,
    "models/nutriscan/v1": 298640,
    "models/singtown-mask/v1": 298944,
    "models/speed-sign/v1": 694928,
}


def test_operator_names_are_those_of_the_schema() -> None:
    enum = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    del enum[tflite_ops.EXTENDED]
    assert {code: tflite_ops.name(code) for code in enum} == enum
    assert tflite_ops.name(tflite_ops.EXTENDED) is None
    assert tflite_ops.name(-1) is tflite_ops.name(len(tflite_ops.NAMES)) is None


def test_the_facts_of_a_model_are_read() -> None:
    model = read_model(SMALL)
    assert model.size == len(SMALL)
    assert model.ops == ("FULLY_CONNECTED", "SOFTMAX")
    assert model.last_ops == ("SOFTMAX",)
    assert (model.subgraphs, model.operators, model.tensors) == (1, 2, 5)
    assert model.weight_bytes == 8 * 8 * 3 * 3 + 4 * 3
    picture, scores = model.inputs[0], model.outputs[0]
    assert (picture.name, picture.shape, picture.dtype, picture.zero_point) == (
        "picture",
        (1, 8, 8, 3),
        "int8",
        -128,
    )
    assert picture.scale == pytest.approx(1 / 255)
    assert (scores.shape, scores.scale) == ((1, 3), 1 / 256)


@pytest.mark.parametrize(("path", "arena"), MEASURED.items())
def test_the_arena_estimate_is_close_to_the_real_engine(path: str, arena: int) -> None:
    model = read_model(real(f"{path}/trained.tflite").read_bytes())
    assert model.arena_estimate == pytest.approx(arena, rel=0.01)


def test_custom_operators_do_not_pass_for_builtin_ones() -> None:
    assert "custom:CONV_2D" in read_model(make(Plan(custom="CONV_2D"))).ops


def test_the_operator_behind_a_dequantised_output_is_found() -> None:
    def dequantise(model: Any) -> None:
        graph = model.subgraphs[0]
        model.operatorCodes[1].builtinCode = model.operatorCodes[1].deprecatedBuiltinCode = 6
        graph.operators[0].outputs, graph.operators[1].inputs = [3], [3]

    assert read_model(make(change=dequantise)).last_ops == ("FULLY_CONNECTED",)


def test_a_graph_that_runs_in_a_circle_ends() -> None:
    def circle(model: Any) -> None:
        model.operatorCodes[1].builtinCode = model.operatorCodes[1].deprecatedBuiltinCode = 22  # RESHAPE
        model.subgraphs[0].operators[1].inputs = [4]

    assert read_model(make(change=circle)).last_ops == ("",)


def test_float_activations_with_integer_weights_are_seen() -> None:
    assert read_model(make(Plan(dtype="FLOAT32", output_dtype="FLOAT32"))).hybrid_ops == ("FULLY_CONNECTED",)
    assert read_model(make(Plan(dtype="FLOAT32", output_dtype="FLOAT32", weights="FLOAT32"))).hybrid_ops == ()


def _weights_cut(model: Any) -> None:
    model.buffers[1].data = model.buffers[1].data[:-1]


def _negative_dimension(model: Any) -> None:
    model.subgraphs[0].tensors[0].shape = [1, -8, 8, 3]


def _huge_dimensions(model: Any) -> None:
    model.subgraphs[0].tensors[0].shape = [2**31 - 1] * 8


def _too_many_dimensions(model: Any) -> None:
    model.subgraphs[0].tensors[0].shape = [1] * 9


def _no_such_tensor(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [0, 1, 5]


def _no_such_output(model: Any) -> None:
    model.subgraphs[0].outputs = [-1]


def _no_such_buffer(model: Any) -> None:
    model.subgraphs[0].tensors[1].buffer = 3


def _no_such_code(model: Any) -> None:
    model.subgraphs[0].operators[0].opcodeIndex = 2


def _unknown_operator(model: Any) -> None:
    model.operatorCodes[0].builtinCode = 30_000


def _no_graph(model: Any) -> None:
    model.subgraphs = []


def _no_output(model: Any) -> None:
    model.subgraphs[0].outputs = []


def _old_schema(model: Any) -> None:
    model.version = 2


def _sparse(model: Any) -> None:
    model.subgraphs[0].tensors[1].sparsity = schema.SparsityParametersT()


def _weights_outside(model: Any) -> None:
    model.buffers[1].offset, model.buffers[1].size = 4096, 64


def _scale_is_nan(model: Any) -> None:
    model.subgraphs[0].tensors[0].quantization.scale = [float("nan")]


def _channels_do_not_fit(model: Any) -> None:
    quantization = model.subgraphs[0].tensors[1].quantization
    quantization.scale, quantization.zeroPoint, quantization.quantizedDimension = [0.1, 0.1], [0, 0], 0


def _scales_without_zero_points(model: Any) -> None:
    quantization = model.subgraphs[0].tensors[1].quantization
    quantization.scale, quantization.zeroPoint = [0.1] * 3, [0]


def _nameless_custom_operator(model: Any) -> None:
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32


def _too_many_operators(model: Any) -> None:
    model.subgraphs[0].operators *= 5000


def _too_many_graphs(model: Any) -> None:
    model.subgraphs *= 65


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_weights_cut, "weights differ in size"),
        (_negative_dimension, "negative dimension"),
        (_huge_dimensions, "larger than any camera"),
        (_too_many_dimensions, "too long"),
        (_no_such_tensor, "not there"),
        (_no_such_output, "not there"),
        (_no_such_buffer, "no buffer"),
        (_no_such_code, "no code"),
        (_unknown_operator, "operator 30000"),
        (_no_graph, "no graph"),
        (_no_output, "no input or no output"),
        (_old_schema, "schema version 2"),
        (_sparse, "sparse"),
        (_weights_outside, "outside its flatbuffer"),
        (_scale_is_nan, "scale"),
        (_channels_do_not_fit, "does not fit"),
        (_scales_without_zero_points, "differ in number"),
        (_nameless_custom_operator, "proper name"),
        (_too_many_operators, "too long"),
        (_too_many_graphs, "too long"),
    ],
)
def test_what_a_camera_would_stumble_over_is_refused(change: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        read_model(make(change=change))


@pytest.mark.parametrize("data", [b"", b"TFL3", bytes(64), b"PK\x03\x04" + bytes(60), b"\xff" * 64])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        read_model(data)


def test_a_model_larger_than_a_release_may_be_is_refused_unread() -> None:
    with pytest.raises(ModelError, match="at most"):
        read_model(SMALL + bytes(16 * 1024 * 1024))


def test_a_small_file_that_describes_an_enormous_tree_is_refused_quickly() -> None:
    def grow(model: Any) -> None:
        big = copy.deepcopy(model.subgraphs[0])
        big.operators *= 2000
        model.subgraphs = [model.subgraphs[0]] * 63 + [big]

    data = bytearray(make(change=grow))
    # Now all 64 entries of the list of graphs refer to the big one: 256,000 operators in 200 KB.
    root = _u32(data, 0)
    vtable = root - struct.unpack_from("<i", data, root)[0]
    field = root + struct.unpack_from("<H", data, vtable + 4 + 2 * 2)[0]
    entries = [field + _u32(data, field) + 4 + 4 * n for n in range(64)]
    big = entries[-1] + _u32(data, entries[-1])
    for entry in entries:
        struct.pack_into("<I", data, entry, big - entry)
    assert len(data) < 300_000
    start = time.perf_counter()
    with pytest.raises(ModelError, match="far larger"):
        read_model(bytes(data))
    assert time.perf_counter() - start < 5  # 0.2 s on an idle machine


def _u32(data: bytearray, at: int) -> int:
    value: int = struct.unpack_from("<I", data, at)[0]
    return value


def test_a_model_cut_at_any_byte_is_refused() -> None:
    for size in range(len(SMALL) - 4):  # the last bytes are padding of the last object
        with pytest.raises(ModelError):
            read_model(SMALL[:size])


def test_a_text_without_its_end_is_refused() -> None:
    at = SMALL.index(b"picture\0")
    with pytest.raises(ModelError, match="does not end"):
        read_model(SMALL[: at + 7] + b"x" + SMALL[at + 8 :])


def test_an_unaligned_offset_is_refused() -> None:
    root = struct.unpack_from("<I", SMALL)[0]
    with pytest.raises(ModelError, match="aligned"):
        read_model(struct.pack("<I", root + 2) + SMALL[4:])


_CHANGES = st.lists(
    st.tuples(
        st.integers(0, len(SMALL) // 4 - 1),
        st.one_of(
            st.integers(0, len(SMALL)),
            st.integers(0, 2**32 - 1),
            st.sampled_from([2**31, 2**31 - 1, 2**32 - 4]),
        ),
    ),
    min_size=1,
    max_size=6,
)


@given(_CHANGES)
def test_any_damage_to_its_words_is_survived(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for word, value in changes:
        struct.pack_into("<I", data, 4 * word, value)
    _reads_or_refuses(bytes(data))


@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_any_damage_to_its_bytes_is_survived(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for at, value in changes:
        data[at] = value
    _reads_or_refuses(bytes(data))


@given(st.binary(max_size=512))
def test_any_bytes_behind_the_mark_are_survived(tail: bytes) -> None:
    _reads_or_refuses(b"\x08\0\0\0TFL3" + tail)


def _reads_or_refuses(data: bytes) -> None:
    """Nothing but ModelError may come out."""
    try:
        model = read_model(data)
    except ModelError:
        return
    assert model.inputs
    assert model.outputs
    assert model.arena_estimate >= 0
