"""Golden frames of a push: pictures of the operator's, with the answers that every camera has to reproduce."""

from pathlib import Path
from typing import TYPE_CHECKING

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.session import Session
from fleetd.cli.text import counted, safe
from fleetd.protocol.manifest import GOLDEN_FRAMES

if TYPE_CHECKING:
    from fleetd.bundles.golden import Golden
    from fleetd.cli.examine import Examined


def make(session: Session, examined: "Examined", folder: Path, tolerance: float) -> "Golden":
    """The frames in this folder, run on the model; says what was taken and what the model made of it."""
    from fleetd.simulator import golden as reference  # noqa: PLC0415  # needs an extra
    from fleetd.simulator.errors import SimulatorUnavailableError  # noqa: PLC0415

    pictures = reference.pictures_in(session.folder / folder)
    try:
        made = reference.from_pictures(examined.bundle.model, pictures)
    except SimulatorUnavailableError as error:
        raise CliError(
            "Golden frames need LiteRT, numpy and Pillow, which are not installed. Nothing was sent.",
            "pip install 'fleetd[golden]', or push without --golden.",
            exit_code=UNUSABLE,
        ) from error
    labels = examined.bundle.labels
    tops = [max(range(len(answer)), key=answer.__getitem__) for answer in made.answers]
    for path, answer, top in zip(pictures, made.answers, tops, strict=True):
        label = labels[top] if top < len(labels) else f"output {top}"
        session.out.warn(f"  golden: {safe(path.name)} is {safe(label)} ({answer[top]:.3f})")
    if len(pictures) == GOLDEN_FRAMES:
        session.out.warn(f"A release carries {GOLDEN_FRAMES} golden frames at most.")
    if len(pictures) > 1 and len(set(tops)) == 1:
        session.out.warn(
            "Note: the model says the same of every picture; pictures of several classes prove more."
        )
    session.out.warn(
        f"{counted(len(pictures), 'golden frame')}: a camera that answers more than {tolerance:g} off goes back."
    )
    return made
