"""Real Edge Impulse exports, from public repositories: each accepted, or refused for the right reason."""

import shutil
from pathlib import Path

import pytest

from fleetd.boards import named
from fleetd.bundles.errors import BundleError
from fleetd.bundles.opening import Bundle, open_bundle
from fleetd.bundles.packing import pack
from fleetd.bundles.preflight import check
from fleetd.bundles.tflite import read_model
from tests.unit.bundles.models import real


def codes(bundle: Bundle, board: str) -> list[str]:
    findings = check(read_model(bundle.model), bundle.labels, named(board))
    return [f"{finding.level}:{finding.code}" for finding in findings]


@pytest.mark.parametrize(
    ("export", "board", "found"),
    [
        ("demo-model/v1", "rt1062", []),
        ("demo-model/v2", "rt1062", []),
        ("demo-model/collapsed", "rt1062", []),
        ("demo-model/v1", "h7", ["warn:needs-sd-card"]),
        ("demo-model/v1", "n6", ["refuse:model-format"]),
        ("models/abdulrehman-cls/v1", "rt1062", []),
        ("models/abdulrehman-cls/v1", "h7", ["warn:memory-tight", "warn:needs-sd-card"]),
        ("models/aura-glasses/v1", "rt1062", []),
        ("models/aura-glasses/v1", "m7", ["warn:memory-tight", "warn:needs-sd-card"]),
        ("models/blimp-fomo/v1", "rt1062", ["refuse:detection-model"]),
        ("models/blimp-fomo/v3", "rt1062", ["refuse:detection-model"]),
        ("models/nutriscan/v1", "rt1062", []),
        ("models/nutriscan/v1", "h7", ["refuse:out-of-memory", "warn:needs-sd-card"]),
        ("models/nutriscan/v2", "rt1062", ["refuse:labels-mismatch"]),
        ("models/singtown-mask/v1", "rt1062", []),
        ("models/speed-sign/v1", "rt1062", []),
        ("models/speed-sign/v1", "nicla-vision", ["refuse:out-of-memory"]),
    ],
)
def test_a_real_export_is_judged_rightly(export: str, board: str, found: list[str]) -> None:
    bundle = open_bundle(real(export))
    assert bundle.warnings == ()
    assert codes(bundle, board) == found


def test_an_empty_export_is_refused_as_empty() -> None:
    with pytest.raises(BundleError, match="is empty"):
        open_bundle(real("models/blimp-fomo/v2"))


@pytest.mark.parametrize(
    ("labels", "found", "warnings"),
    [
        ("1-edec2010d6.txt", [], 0),
        ("2-2d122e9a47.txt", [], 0),
        (
            "3-b7762c2996.txt",
            ["refuse:labels-mismatch"],
            0,
        ),  # five names for four classes, newline at the end
    ],
)
def test_the_labels_a_project_had_over_time_are_judged_against_its_first_model(
    labels: str, found: list[str], warnings: int
) -> None:
    model = real("models/nutriscan/v1/trained.tflite")
    bundle = open_bundle(model, labels=real(f"models/nutriscan/labels_history/{labels}"))
    assert codes(bundle, "rt1062") == found
    assert len(bundle.warnings) == warnings


def test_the_five_labels_fit_the_model_with_five_classes() -> None:
    bundle = open_bundle(
        real("models/nutriscan/v2/trained.tflite"),
        labels=real("models/nutriscan/labels_history/3-b7762c2996.txt"),
    )
    assert codes(bundle, "rt1062") == []


def test_notes_in_place_of_labels_are_refused(tmp_path: Path) -> None:
    shutil.copy(real("models/nutriscan/v1/trained.tflite"), tmp_path)
    shutil.copy(real("models/nutriscan/labels_history/4-e27847cc7d.txt"), tmp_path / "labels.txt")
    with pytest.raises(BundleError, match="more than once"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "share"),
    [
        # Two projects of different people: what they share is the backbone that both began with.
        ("models/singtown-mask/v1", "models/nutriscan/v1", 0.15),
        # The same classifier once more: only its threshold changes.
        ("models/nutriscan/v1", "models/nutriscan/v1", 0.001),
    ],
)
def test_a_retrained_classifier_travels_as_a_small_patch(old: str, new: str, share: float) -> None:
    base = pack(open_bundle(real(old)), ["OMVRT1060"])
    packed = pack(open_bundle(real(new)), ["OMVRT1060"], bases=[base.image.data])
    (patch,) = packed.patches
    measured = patch.size / len(packed.image.data)
    print(f"{old} -> {new}: {patch.size} bytes, {measured:.1%} of the file, {packed.full.size} in full")
    assert measured <= share
    assert patch.decode(len(packed.image.data), base.image.data) == packed.image.data


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("demo-model/v1", "demo-model/v2"),  # trained from the start: 15 % saved
        ("models/nutriscan/v1", "models/speed-sign/v1"),  # another network
    ],
)
def test_models_that_have_little_in_common_get_no_patch(old: str, new: str) -> None:
    base = pack(open_bundle(real(old)), ["OMVRT1060"])
    assert pack(open_bundle(real(new)), ["OMVRT1060"], bases=[base.image.data]).patches == ()
