"""`fleetctl inspect`: what is in a bundle and where it would run. Needs no fleetd."""

from pathlib import Path
from typing import Annotated

import typer

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.session import Json, session_of

Labels = Annotated[
    Path | None, typer.Option("--labels", metavar="FILE", help="Use this labels.txt instead of the bundle's.")
]
Boards = Annotated[
    list[str] | None, typer.Option("--board", metavar="BOARD", help="Only this board; may be repeated.")
]


def inspect(
    ctx: typer.Context,
    bundle: Annotated[
        Path, typer.Argument(help='An Edge Impulse "OpenMV Library" zip, its folder, or a .tflite.')
    ],
    board: Boards = None,
    labels: Labels = None,
    as_json: Json = False,
) -> None:
    """Show what is in a bundle and which boards can run it. Exit code 2: none of them."""
    from fleetd import boards  # noqa: PLC0415  # help needs none of these
    from fleetd.cli import examine  # noqa: PLC0415

    session = session_of(ctx)
    examined = examine.examine(bundle, labels)
    wanted = [boards.named(name) for name in board] if board else boards.profiles()
    reports = examine.judge(examined, wanted)
    if as_json:
        session.out.json(examine.as_data(examined, reports))
    else:
        examine.print_facts(session.out, examined)
        session.out.say("")
        examine.print_verdicts(session.out, reports)
    refused = [one for one in reports if one.verdict == "refused"]
    if refused if board else len(refused) == len(reports):
        names = ", ".join(one.board.name for one in refused)
        raise CliError(
            f"The model cannot run on {names}.", "The reasons and remedies stand above.", exit_code=UNUSABLE
        )
