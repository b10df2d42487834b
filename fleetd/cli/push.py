"""`fleetctl push-model`: from a bundle on this machine to the cameras a query names.

The bundle is judged for every board before anything leaves this machine, and signed here: fleetd and the
broker only carry what the operator's key has signed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fleetd.cli import keystore
from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.inspect import Labels
from fleetd.cli.keys import Key, PasswordFile
from fleetd.cli.reasons import advice
from fleetd.cli.session import Json, Session, session_of
from fleetd.cli.text import counted, safe, size
from fleetd.cli.watch import conclude, watch

if TYPE_CHECKING:  # reading models and signing take libraries that help does not need
    from fleetd.boards import BoardProfile
    from fleetd.bundles.release import BuiltRelease
    from fleetd.cli.examine import Examined

DAY_SECONDS: Final = 86400


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator wants in the release."""

    name: str | None
    version: str | None
    threshold: float
    expires_days: int | None


@dataclass(frozen=True, slots=True)
class Aim:
    """Whom a push would reach."""

    cameras: int
    boards: tuple["BoardProfile", ...]
    counts: Mapping[str, int]  # cameras by board key
    prefixes: tuple[str, ...]  # what the manifest names as boards: beginnings of omv.arch()
    silent: int  # cameras that have not said which board they are


def push_model(
    ctx: typer.Context,
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help='An Edge Impulse "OpenMV Library" zip, its folder, or a .tflite.'
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", "-t", metavar="QUERY", help="Which cameras: all, tag=line-3, id=cam-*, ...")
    ],
    name: Annotated[str | None, typer.Option(help="The model's name; usually the file's.")] = None,
    version: Annotated[str | None, typer.Option(help="Its version; usually the sequence number.")] = None,
    waves: Annotated[str, typer.Option(metavar="PERCENTS", help="Cumulative shares, e.g. 5,25,100.")] = "100",
    labels: Labels = None,
    key: Key = None,
    password_file: PasswordFile = None,
    threshold: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Scores below are not to be trusted; for whoever reads them."),
    ] = 0.0,
    board: Annotated[
        list[str] | None, typer.Option("--board", help="Only cameras of this board; may be repeated.")
    ] = None,
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Cameras refuse the release after so many days.")
    ] = None,
    max_failed: Annotated[
        int | None, typer.Option(min=0, help="Halt after more bad outcomes than this; usually 1.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop before anything is signed or sent.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    watching: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Watch until the rollout ends.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Push a model to cameras. Exit code 0: all confirmed; 2: it does not fit; 3: not all confirmed."""
    from fleetd.cli import examine  # noqa: PLC0415  # see above

    session = session_of(ctx)
    shares = _shares(waves)
    key_file = keystore.key_path(session.env, key)
    examined = examine.examine(bundle, labels)
    if not as_json:
        examine.print_facts(session.out, examined)
    aim = _aim(session, to, board or [])
    _judge(session, examined, aim, as_json=as_json)
    if dry_run:
        session.out.warn(
            f"Dry run: nothing was signed or sent. It would go to {counted(aim.cameras, 'camera')}."
        )
        return
    _check_trusted(session, key_file)
    if not yes:
        steps = ", ".join(f"{share} %" for share in shares)
        typer.confirm(f"Push to {counted(aim.cameras, 'camera')} ({steps})?", abort=True, err=True)

    wishes = Wishes(name, version, threshold, expires_days)
    built = _build(session, examined, aim.prefixes, wishes, key_file, password_file)
    release = session.api.upload(built.blob, [encoded.data for encoded in built.encodings])
    session.out.warn(f"Uploaded {safe(release['id'])} ({_sizes(built)}).")

    plan: dict[str, Any] = {"release": release["id"], "target": to, "waves": shares}
    skipped = session.api.post("rollouts", "preview", body=plan)["skipped"]
    for one in skipped:
        found = advice(one["reason"])
        todo = f" {found.todo}" if found is not None else ""
        session.out.warn(f"  {safe(one['camera'])} is left out: {safe(one['detail'])}{todo}")
    settings = {} if max_failed is None else {"max_failed": max_failed}
    rollout = session.api.post("rollouts", body={**plan, "settings": settings})
    session.out.warn(f"Rollout {rollout['id']} has started.")
    view = watch(session, rollout["id"], quiet=as_json) if watching else None
    if as_json:
        session.out.json({"release": release, "rollout": rollout, "skipped": skipped, "outcome": view})
    if view is not None:
        conclude(session, view)
    elif not as_json:
        session.out.say(f"`fleetctl rollouts watch {rollout['id']}` watches it.")


def _aim(session: Session, to: str, wanted: Sequence[str]) -> Aim:
    """The cameras a query names, on the wanted boards if any are named; CliError when there are none."""
    from fleetd import boards  # noqa: PLC0415  # see above

    chosen = [boards.named(name) for name in wanted]
    found: list[dict[str, Any]] = session.api.get("cameras", target=to)
    placed = [(camera, boards.find(camera["board"]) if camera["board"] else None) for camera in found]
    if chosen:
        placed = [(camera, board) for camera, board in placed if board is None or board in chosen]
    if not placed:
        raise CliError(
            f"No camera matches {safe(to)}{' on these boards' if chosen else ''}.",
            "`fleetctl cameras list` shows them; docs/updates.md explains queries.",
            exit_code=UNUSABLE,
        )
    known = [board for _, board in placed if board is not None]
    prefixes = {board.arch for board in chosen}
    for camera, board in placed:  # a board without a profile is named by what its cameras report
        if board is not None:
            prefixes.add(camera["board"] if board is boards.GENERIC else board.arch)
    return Aim(
        cameras=len(placed),
        boards=tuple(dict.fromkeys((*chosen, *known))) or (boards.GENERIC,),
        counts=Counter(board.key for board in known),
        prefixes=tuple(sorted(prefixes)) or ("*",),
        silent=len(placed) - len(known),
    )


def _judge(session: Session, examined: "Examined", aim: Aim, *, as_json: bool) -> None:
    """Prints what every board makes of the model; CliError when one refuses."""
    from fleetd.cli import examine  # noqa: PLC0415  # see above

    reports = examine.judge(examined, aim.boards)
    if not as_json:
        session.out.say("")
        examine.print_verdicts(session.out, reports, aim.counts)
    if aim.silent:
        session.out.warn(
            f"Not known yet which board: {counted(aim.silent, 'camera')}, which will judge for themselves."
        )
    refused = [report for report in reports if report.verdict == "refused"]
    if not refused:
        return
    todo = "The reasons and remedies stand above."
    if as_json:  # they do not
        todo = " ".join(f"{found.message} {found.remedy}" for report in refused for found in report.findings)
    fitting = [report.board.key for report in reports if report not in refused]
    if fitting:
        todo += f" To push to the others only: {' '.join(f'--board {key}' for key in fitting)}"
    names = ", ".join(report.board.name for report in refused)
    raise CliError(f"The model cannot run on {names}. Nothing was sent.", safe(todo), exit_code=UNUSABLE)


def _check_trusted(session: Session, key_file: Path) -> None:
    """Refuses early when fleetd would not accept the signature."""
    try:
        half = keystore.public_half(key_file)
    except CliError:
        if not key_file.exists():
            raise
        return  # a key without its public half beside it: fleetd says so when it does not know it
    in_force = {one["key_id"] for one in session.api.get("keys") if one["revoked_at"] is None}
    if half.key_id not in in_force:
        raise CliError(
            f"fleetd does not accept releases signed with {half.key_id}.",
            "An admin can change that: `fleetctl keys trust`.",
            exit_code=UNUSABLE,
        )


def _build(
    session: Session,
    examined: "Examined",
    boards: Sequence[str],
    wishes: Wishes,
    key_file: Path,
    password_file: Path | None,
) -> "BuiltRelease":
    """The signed release, numbered as fleetd expects the next one."""
    from fleetd.bundles.release import build_release  # noqa: PLC0415  # see above

    key = keystore.load(key_file, password_file)
    coming = session.api.get("releases", "next", kind="model")
    now = int(session.now())
    return build_release(
        examined.bundle,
        release_id=str(coming["release"]),
        name=wishes.name or examined.bundle.name,
        version=wishes.version or str(coming["sequence"]),
        epoch=int(coming["epoch"]),
        sequence=int(coming["sequence"]),
        boards=boards,
        created=now,
        key=key,
        expires=None if wishes.expires_days is None else now + wishes.expires_days * DAY_SECONDS,
        threshold=wishes.threshold,
    )


def _sizes(built: "BuiltRelease") -> str:
    """What a camera has to fetch."""
    smallest = min(encoded.size for encoded in built.encodings)
    return f"{size(len(built.content))}, {size(smallest)} over the air"


def _shares(text: str) -> list[int]:
    """`5,25,100` as numbers; the rules are those of rollouts."""
    from fleetd.domain.rollout import check_waves  # noqa: PLC0415  # see above

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise CliError(
            f"{safe(text)!r} are no waves.",
            "Write percentages with commas: --waves 5,25,100",
            exit_code=UNUSABLE,
        ) from None
    return list(check_waves(numbers))
