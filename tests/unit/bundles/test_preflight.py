from dataclasses import replace
from typing import Any

import pytest

from fleetd.boards import GENERIC, BoardProfile, named
from fleetd.bundles.preflight import check, refusals
from fleetd.bundles.tflite import Model, read_model
from tests.unit.bundles.models import LABELS, Plan, make

RT1062 = named("rt1062")
MB = 1024 * 1024


def codes(
    model: Model, board: BoardProfile = RT1062, labels: tuple[str, ...] = LABELS, **facts: Any
) -> list[str]:
    return [f"{finding.level}:{finding.code}" for finding in check(model, labels, board, **facts)]


def test_a_classifier_as_edge_impulse_makes_them_fits_everywhere_but_on_n6() -> None:
    model = read_model(make())
    for board in ("rt1062", "h7-plus", "pure-thermal", "ae3", "nicla-vision", "portenta-h7", "giga-r1"):
        assert codes(model, named(board)) == [], board
    assert codes(model, GENERIC) == []
    assert codes(model, named("n6")) == ["refuse:model-format"]


@pytest.mark.parametrize("board", ["h7", "m7"])
def test_boards_with_a_tiny_flash_need_a_card(board: str) -> None:
    assert codes(read_model(make()), named(board)) == ["warn:needs-sd-card"]


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        (Plan(channels=1), []),
        (Plan(dtype="UINT8", zero_point=0, output_dtype="UINT8", output_zero_point=0), []),
        (Plan(dtype="FLOAT32", output_dtype="FLOAT32", weights="FLOAT32"), ["warn:float-model"]),
        (Plan(dtype="FLOAT32", output_dtype="FLOAT32"), ["refuse:hybrid-model", "warn:float-model"]),
        (Plan(width=6), ["warn:input-not-square"]),
        (Plan(channels=4), ["refuse:input-shape"]),
        (Plan(dtype="INT16", zero_point=0), ["refuse:input-type"]),
        (Plan(scale=1 / 127.5, zero_point=0), ["refuse:input-quantisation"]),
        (Plan(zero_point=0), ["refuse:input-quantisation"]),
        (Plan(scale=0.0), ["refuse:input-quantisation"]),
        (Plan(dtype="UINT8"), ["refuse:input-quantisation"]),
        (Plan(classes=4), ["refuse:labels-mismatch"]),
        (Plan(classes=1), ["refuse:output-shape"]),
        (Plan(output_shape=[1, 12, 12, 3]), ["refuse:detection-model"]),
        (Plan(output_shape=[1, 189, 7]), ["refuse:detection-model"]),
        (Plan(output_shape=[1, 1, 1, 3]), []),
        (Plan(output_scale=0.2, output_zero_point=3), ["refuse:output-range"]),
        (Plan(output_dtype="INT32"), ["refuse:output-type"]),
        (
            Plan(dtype="FLOAT32", output_dtype="FLOAT32", weights="FLOAT32", last="RELU"),
            ["warn:float-model", "warn:output-range"],
        ),
        (Plan(operator="POW"), ["refuse:unsupported-op"]),
        (Plan(custom="FlexErf"), ["refuse:unsupported-op"]),
        (Plan(custom="TFLite_Detection_PostProcess"), ["refuse:detection-model"]),
        (Plan(custom="ethos-u"), ["refuse:model-format"]),
        (Plan(custom="SignalRfft"), []),
    ],
)
def test_what_speaks_against_a_model_has_a_name(plan: Plan, found: list[str]) -> None:
    assert codes(read_model(make(plan))) == found


def test_vela_models_are_for_the_ae3() -> None:
    assert codes(read_model(make(Plan(custom="ethos-u"))), named("ae3")) == []


def test_several_inputs_or_outputs_are_refused() -> None:
    def two(model: Any) -> None:
        model.subgraphs[0].inputs, model.subgraphs[0].outputs = [0, 3], [3, 4]

    assert codes(read_model(make(change=two))) == ["refuse:input-count", "refuse:output-count"]


def test_a_sound_model_is_refused_for_its_input_when_it_is_no_picture() -> None:
    def spectrum(model: Any) -> None:
        model.subgraphs[0].tensors[0].shape = [1, 650]

    assert codes(read_model(make(change=spectrum))) == ["refuse:input-shape"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ([1, 12, 12, 3], "FOMO object detection"),
        ([1, 12, 12, 24], "visual anomaly"),
        ([1, 189, 7], "an object detection model"),
    ],
)
def test_a_detection_model_is_called_by_its_kind(output: list[int], words: str) -> None:
    finding = check(read_model(make(Plan(output_shape=output))), LABELS, RT1062)[0]
    assert words in finding.message
    assert "classification" in finding.remedy


@pytest.mark.parametrize(
    ("board", "size", "arena", "found"),
    [
        ("rt1062", MB, 2 * MB, []),
        ("rt1062", 2 * MB, 2 * MB, ["warn:needs-sd-card"]),
        ("rt1062", 5 * MB, MB, ["warn:slot-size"]),
        ("rt1062", MB, 9 * MB, ["refuse:out-of-memory"]),
        ("rt1062", 1_298_432, MB, []),  # exactly a slot with its header
        ("rt1062", 1_298_433, MB, ["warn:needs-sd-card"]),
        ("h7", 600 * 1024, 100 * 1024, ["refuse:out-of-memory", "warn:needs-sd-card"]),
        ("h7", 300 * 1024, 100 * 1024, ["warn:memory-tight", "warn:needs-sd-card"]),
        ("h7", 60 * 1024, 245 * 1024, ["warn:memory-tight", "warn:needs-sd-card"]),
        ("h7", 60 * 1024, 300 * 1024, ["refuse:out-of-memory", "warn:needs-sd-card"]),
        ("nicla-vision", 60 * 1024, 200 * 1024, []),
        ("giga-r1", 4 * MB, MB, ["refuse:not-enough-storage", "warn:memory-tight"]),
        ("generic", 15 * MB, 15 * MB, []),
    ],
)
def test_size_and_memory_are_judged_by_the_board(board: str, size: int, arena: int, found: list[str]) -> None:
    model = replace(read_model(make()), size=size, arena_estimate=arena)
    profile = GENERIC if board == "generic" else named(board)
    assert codes(model, profile, content_bytes=size) == found


def test_findings_say_what_is_wrong_and_what_to_do_with_refusals_first() -> None:
    model = read_model(make(Plan(width=6, classes=4, operator="POW")))
    findings = check(model, LABELS, RT1062)
    assert [finding.level for finding in findings] == ["refuse", "refuse", "warn"]
    assert refusals(findings) == findings[:2]
    assert all(finding.message.endswith(".") and finding.remedy.endswith(".") for finding in findings)
    mismatch = next(finding for finding in findings if finding.code == "labels-mismatch")
    assert mismatch.message == "The model has 4 classes and labels.txt names 3."
