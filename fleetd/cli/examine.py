"""What is in a bundle and which boards could run it, before anything is sent anywhere."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fleetd.boards import BoardProfile
from fleetd.bundles.opening import Bundle, open_bundle
from fleetd.bundles.preflight import Finding, check, refusals
from fleetd.bundles.tflite import Model, read_model
from fleetd.cli.output import Output
from fleetd.cli.text import size


@dataclass(frozen=True, slots=True)
class Examined:
    """A bundle with what its model says of itself."""

    bundle: Bundle
    model: Model


class BoardReport(NamedTuple):
    """What speaks against running the model on a board."""

    board: BoardProfile
    findings: Sequence[Finding]

    @property
    def verdict(self) -> str:
        """`fits`, `warning` or `refused`."""
        if refusals(self.findings):
            return "refused"
        return "warning" if self.findings else "fits"


def examine(path: Path, labels: Path | None) -> Examined:
    """Opens the bundle and reads its model; InvalidError says what is wrong with it."""
    bundle = open_bundle(path, labels)
    return Examined(bundle, read_model(bundle.model))


def judge(examined: Examined, boards: Iterable[BoardProfile]) -> list[BoardReport]:
    """The verdict of every board."""
    return [BoardReport(board, check(examined.model, examined.bundle.labels, board)) for board in boards]


def print_facts(out: Output, examined: Examined) -> None:
    """What is in the bundle."""
    bundle, model = examined.bundle, examined.model
    shapes = [
        ", ".join(f"{'x'.join(map(str, tensor.shape))} {tensor.dtype}" for tensor in tensors)
        for tensors in (model.inputs, model.outputs)
    ]
    out.facts(
        [
            ("model", f"{bundle.model_path} ({size(len(bundle.model))})"),
            ("input", shapes[0]),
            ("output", shapes[1]),
            ("labels", f"{len(bundle.labels)}: {', '.join(bundle.labels)}"),
            ("operators", ", ".join(model.ops)),
            ("memory", f"about {size(model.arena_estimate)} beside the model"),
        ]
    )
    for warning in bundle.warnings:
        out.facts([("note", warning)])


def print_verdicts(
    out: Output, reports: Sequence[BoardReport], cameras: Mapping[str, int] | None = None
) -> None:
    """One line per board, and every finding with its remedy. `cameras`: how many there are, by board key."""
    rows: list[tuple[object, ...]] = []
    for board, findings, verdict in ((one.board, one.findings, one.verdict) for one in reports):
        count = () if cameras is None else (cameras.get(board.key, 0),)
        rows.append(
            (board.name, *count, verdict, f"{findings[0].message} {findings[0].remedy}" if findings else "")
        )
        rows += [("", *("" for _ in count), "", f"{one.message} {one.remedy}") for one in findings[1:]]
    headings = ("board", "verdict", "why") if cameras is None else ("board", "cameras", "verdict", "why")
    out.table(headings, rows, empty="No board to judge.")


def as_data(examined: Examined, reports: Sequence[BoardReport]) -> dict[str, Any]:
    """The same for programs."""
    bundle, model = examined.bundle, examined.model
    return {
        "name": bundle.name,
        "model": bundle.model_path,
        "size": len(bundle.model),
        "labels": list(bundle.labels),
        "inputs": [_tensor(tensor) for tensor in model.inputs],
        "outputs": [_tensor(tensor) for tensor in model.outputs],
        "ops": list(model.ops),
        "arena_bytes": model.arena_estimate,
        "warnings": list(bundle.warnings),
        "boards": [
            {
                "board": one.board.key,
                "name": one.board.name,
                "verdict": one.verdict,
                "findings": [
                    {
                        "level": found.level,
                        "code": found.code,
                        "message": found.message,
                        "remedy": found.remedy,
                    }
                    for found in one.findings
                ],
            }
            for one in reports
        ],
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    return {
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
    }
