"""`fleetctl push-model`: from a bundle on this machine to the cameras a query names.

The bundle is judged for every board before anything leaves this machine, and signed here: fleetd and the
broker only carry what the operator's key has signed. Cameras that run a similar model fetch a patch on it; so
what they run is fetched from fleetd first, and checked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fleetd.cli import keystore, pace, risks
from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.inspect import Labels
from fleetd.cli.keys import Key, PasswordFile
from fleetd.cli.rolling import finish, roll_out
from fleetd.cli.session import Json, Session, session_of
from fleetd.cli.text import counted, safe

if TYPE_CHECKING:  # reading models and signing take libraries that help does not need
    from fleetd.bundles.packing import Packed
    from fleetd.bundles.release import Draft
    from fleetd.bundles.signing import OperatorKey
    from fleetd.cli.aim import Aim
    from fleetd.cli.examine import BoardReport, Examined

DAY_SECONDS: Final = 86400


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator wants in the release."""

    name: str | None
    version: str | None
    threshold: float
    expires_days: int | None
    patches: bool
    golden: Path | None = None
    tolerance: float = 0.02


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
    waves: pace.Waves = None,
    canaries: pace.Canaries = None,
    soak: pace.Soak = None,
    start_in: pace.StartIn = None,
    window: pace.Hours = None,
    at_once: pace.AtOnce = None,
    site_at_once: pace.SiteAtOnce = None,
    site_per_hour: pace.SitePerHour = None,
    retries: pace.Retries = None,
    priority: pace.Priority = None,
    max_failed: pace.MaxFailed = None,
    tolerated: pace.Tolerated = None,
    no_health: pace.NoHealth = False,
    ignore: pace.Ignore = None,
    way_back: pace.WayBack = False,
    golden: Annotated[
        Path | None,
        typer.Option(
            "--golden", metavar="DIR", help="Pictures to which a camera must answer as this machine does."
        ),
    ] = None,
    golden_tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How far a camera's score may be off on them.")
    ] = 0.02,
    approval: Annotated[
        bool, typer.Option("--approval", help="Begin only when a second person has approved it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost; nothing is signed or sent.")
    ] = False,
    link_kbit: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="A camera's link in kbit/s, to reckon seconds.")
    ] = 2000,
    no_patches: Annotated[bool, typer.Option("--no-patches", help="Offer the full encoding only.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    watching: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Watch until the rollout ends.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Push a model to cameras. Exit code 0: all confirmed; 2: it does not fit; 3: not all confirmed."""
    from fleetd.cli import aim, cost, examine  # noqa: PLC0415  # see above

    session = session_of(ctx)
    wish = pace.Wish(
        waves=waves,
        canaries=canaries,
        soak=soak,
        start_in=start_in,
        window=window,
        at_once=at_once,
        site_at_once=site_at_once,
        site_per_hour=site_per_hour,
        retries=retries,
        priority=priority,
        max_failed=max_failed,
        tolerated=tolerated,
        no_health=no_health,
        ignore=tuple(ignore or ()),
    )
    pace.pace_of(wish, 1, session.now())  # a wrong option is told before anything is looked at
    key_file = keystore.key_path(session.env, key)
    wishes = Wishes(
        name, version, threshold, expires_days, not no_patches, golden=golden, tolerance=golden_tolerance
    )
    examined = examine.examine(bundle, labels)
    if not as_json:
        examine.print_facts(session.out, examined)
    aimed = aim.aim_at(session, to, board or [])
    chosen = pace.pace_of(wish, len(aimed.members), session.now())
    refused = _judge(session, examined, aimed, as_json=as_json)
    risky = risks.warn_of_risks(session, {one.name for one in aimed.members})
    if dry_run:
        _rehearse(session, examined, aimed, refused, wishes, link_kbit, as_json=as_json)
    _check_fits(refused, aimed, as_json=as_json)
    if dry_run:
        return
    check_trusted(session, key_file)
    packed = _pack(session, examined, aimed, wishes)
    estimate = cost.cost_of(_draft(session, examined, packed, wishes), aimed)
    session.out.warn(cost.summary(estimate))
    for camera, why in estimate.unable:
        session.out.warn(f"  {safe(camera)} cannot take it: {safe(why)}")
    if not yes:
        typer.confirm(f"Push to {counted(len(aimed.members), 'camera')} ({chosen})?", abort=True, err=True)

    signing = keystore.load(key_file, password_file)
    # Numbered anew: answering takes a while, and others push too.
    built = _draft(session, examined, packed, wishes).sign(signing)
    release = session.api.upload(built.blob, [encoded.data for encoded in built.encodings])
    session.out.warn(f"Uploaded {safe(release['id'])}.")

    settings = dict(chosen.settings)
    if way_back:
        settings |= _way_back(session, aimed, release, signing)
    started = roll_out(
        session,
        release["id"],
        to,
        chosen,
        settings,
        approval=approval,
        watching=watching,
        quiet=as_json,
    )
    if as_json:
        cost_data = cost.as_data(estimate, link_kbit)
        session.out.json({"release": release, "cost": cost_data, "risks": risky, **started.as_data()})
    finish(session, started, as_json=as_json)


def _judge(session: Session, examined: "Examined", aimed: "Aim", *, as_json: bool) -> list["BoardReport"]:
    """Prints what every board makes of the model; answers the reports of those that refuse it."""
    from fleetd.cli import examine  # noqa: PLC0415  # see above

    reports = examine.judge(examined, aimed.boards)
    if not as_json:
        session.out.say("")
        examine.print_verdicts(session.out, reports, aimed.counts)
    if aimed.silent:
        session.out.warn(
            f"Not known yet which board: {counted(aimed.silent, 'camera')}, which will judge for themselves."
        )
    return [report for report in reports if report.verdict == "refused"]


def _check_fits(refused: list["BoardReport"], aimed: "Aim", *, as_json: bool) -> None:
    """CliError when a board refuses."""
    if not refused:
        return
    todo = "The reasons and remedies stand above."
    if as_json:  # they do not
        todo = " ".join(f"{found.message} {found.remedy}" for report in refused for found in report.findings)
    unfit = [report.board for report in refused]
    fitting = [board.key for board in aimed.boards if board not in unfit]
    if fitting:
        todo += f" To push to the others only: {' '.join(f'--board {key}' for key in fitting)}"
    names = ", ".join(board.name for board in unfit)
    raise CliError(f"The model cannot run on {names}. Nothing was sent.", safe(todo), exit_code=UNUSABLE)


def _rehearse(
    session: Session,
    examined: "Examined",
    aimed: "Aim",
    refused: list["BoardReport"],
    wishes: Wishes,
    link_kbit: int,
    *,
    as_json: bool,
) -> None:
    """Says what the push would cost those that can take it, and who cannot."""
    from fleetd.cli import cost  # noqa: PLC0415  # see above

    why = {report.board: report.findings[0].message for report in refused}
    unable = [(one.name, why[one.board]) for one in aimed.members if one.board in why]
    able = aimed.without(why)
    if not able.members:
        return
    packed = _pack(session, examined, able, wishes)
    estimate = cost.cost_of(_draft(session, examined, packed, wishes), able, unable)
    if as_json:
        session.out.json({"cost": cost.as_data(estimate, link_kbit)})
    else:
        session.out.say("")
        cost.print_cost(session.out, estimate, link_kbit)
    session.out.warn(
        f"Dry run: nothing was signed or sent. It would go to {counted(estimate.cameras, 'camera')}."
    )


def check_trusted(session: Session, key_file: Path) -> None:
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


def _pack(session: Session, examined: "Examined", aimed: "Aim", wishes: Wishes) -> "Packed":
    """What the release carries, with patches on what the cameras run."""
    from fleetd.bundles.packing import pack  # noqa: PLC0415  # see above
    from fleetd.cli import bases, golden  # noqa: PLC0415  # see above

    frames = None
    if wishes.golden is not None:
        frames = golden.make(session, examined, wishes.golden, wishes.tolerance)
    found = bases.fetch(session, bases.grouped(aimed.members)) if wishes.patches else []
    return pack(examined.bundle, aimed.prefixes, found, frames, wishes.tolerance)


def _draft(session: Session, examined: "Examined", packed: "Packed", wishes: Wishes) -> "Draft":
    """The release, numbered as fleetd expects the next one."""
    from fleetd.bundles.release import draft_release  # noqa: PLC0415  # see above

    coming = session.api.get("releases", "next", kind="model")
    now = int(session.now())
    return draft_release(
        packed,
        release_id=str(coming["release"]),
        name=wishes.name or examined.bundle.name,
        version=wishes.version or str(coming["sequence"]),
        epoch=int(coming["epoch"]),
        sequence=int(coming["sequence"]),
        created=now,
        expires=None if wishes.expires_days is None else now + wishes.expires_days * DAY_SECONDS,
        threshold=wishes.threshold,
    )


def _way_back(
    session: Session, aimed: "Aim", release: dict[str, Any], signing: "OperatorKey"
) -> dict[str, Any]:
    """Signs what most of the cameras run now once more, as a release newer than the one that is pushed."""
    from fleetd.cli import again, bases  # noqa: PLC0415  # see above

    old = next((group.release for group in bases.grouped(aimed.members) if group.release), None)
    if old is None:
        raise CliError(
            f"No camera has said what it runs, so there is no way back. {safe(release['id'])} is uploaded, no "
            "rollout was started.",
            "Push again without --way-back.",
            exit_code=UNUSABLE,
        )
    back = again.sign_again(session, old, signing, from_=[release["id"]])
    return {"take_back": True, "way_back": back["id"]}
