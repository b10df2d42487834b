"""`fleetctl rollouts`: look at rollouts, watch one, have it explained, pause, resume, cancel, retry, revert it."""

from collections import Counter
from typing import Annotated, Any

import typer

from fleetd.cli import keystore
from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.explaining import limits_line, pace_line, print_explanation
from fleetd.cli.keys import Key, PasswordFile
from fleetd.cli.session import Json, Limit, session_of
from fleetd.cli.text import counted, safe, when
from fleetd.cli.watch import conclude, tally_line
from fleetd.cli.watch import explain as outcome
from fleetd.cli.watch import watch as watch_rollout
from fleetd.domain.rollout import steps

app = typer.Typer(no_args_is_help=True, help="Rollouts: a release on its way to cameras.")

Number = Annotated[int, typer.Argument(metavar="ROLLOUT", min=1, help="The rollout's number.")]


@app.command("list")
@app.command("ls", hidden=True)
def list_rollouts(ctx: typer.Context, limit: Limit = 50, as_json: Json = False) -> None:
    """List rollouts, newest first."""
    session = session_of(ctx)
    found = session.api.get("rollouts", limit=limit)
    if as_json:
        session.out.json(found)
        return
    session.out.table(
        ("rollout", "release", "to", "state", "wave", "started", "by", "why"),
        (
            (
                one["id"],
                one["release_id"],
                one["target"],
                one["state"],
                f"{one['wave'] + 1} of {len(steps(one['waves'], one['settings']['canaries']))}",
                when(one["created_at"]),
                one["created_by"],
                one["reason"],
            )
            for one in found
        ),
        empty="There is no rollout. `fleetctl push-model PATH --to QUERY` starts one.",
    )


@app.command()
def show(ctx: typer.Context, rollout: Number, as_json: Json = False) -> None:
    """Show a rollout with every camera's part in it."""
    session = session_of(ctx)
    view = session.api.get("rollouts", rollout)
    if as_json:
        session.out.json(view)
        return
    found = view["rollout"]
    limits = found["settings"]
    waves = ", ".join(steps(found["waves"], limits["canaries"]))
    session.out.facts(
        [
            ("rollout", found["id"]),
            ("release", found["release_id"]),
            ("to", found["target"]),
            ("state", found["state"]),
            ("why", found["reason"]),
            ("waves", f"{waves}; at wave {found['wave'] + 1}"),
            ("limits", limits_line(limits)),
            ("pace", pace_line(limits)),
            ("started", f"{when(found['created_at'])} by {found['created_by']}"),
            ("ended", when(found["finished_at"])),
            ("cameras", tally_line(view)),
        ]
    )
    session.out.say("")
    session.out.table(
        ("camera", "wave", "state", "blocks", "changed", "why"),
        (
            (
                one["camera"],
                one["wave"] + 1,
                one["state"],
                _blocks(one),
                when(one["changed_at"]),
                outcome(one) if one["reason"] or one["detail"] else None,
            )
            for one in view["assignments"]
        ),
        empty="No camera takes part.",
    )


@app.command()
def watch(ctx: typer.Context, rollout: Number, as_json: Json = False) -> None:
    """Watch a rollout until it ends. Exit code 0: all cameras confirmed; 3: not."""
    session = session_of(ctx)
    view = watch_rollout(session, rollout, quiet=as_json)
    if as_json:
        session.out.json(view)
    conclude(session, view)


@app.command()
def pause(ctx: typer.Context, rollout: Number) -> None:
    """Offer nothing more for now; what cameras have begun goes on."""
    _act(ctx, rollout, "pause")


@app.command()
def approve(ctx: typer.Context, rollout: Number) -> None:
    """Let a rollout begin that takes a second person; not for the one who started it."""
    session = session_of(ctx)
    found = session.api.post("rollouts", rollout, "approve")
    session.out.say(f"Rollout {found['id']} begins: approved by {safe(found['settings']['approved_by'])}.")


@app.command()
def resume(ctx: typer.Context, rollout: Number) -> None:
    """Go on; after a halt this accepts the bad outcomes so far."""
    _act(ctx, rollout, "resume")


@app.command()
def cancel(ctx: typer.Context, rollout: Number) -> None:
    """End a rollout, also for cameras that are transferring; cameras that have it keep it."""
    _act(ctx, rollout, "cancel")


@app.command()
def retry(ctx: typer.Context, rollout: Number) -> None:
    """Offer the release again, in a new rollout, to the cameras that failed or fell silent."""
    session = session_of(ctx)
    found = session.api.post("rollouts", rollout, "retry")
    session.out.say(f"Rollout {found['id']} tries again. `fleetctl rollouts watch {found['id']}` watches it.")


@app.command()
def explain(ctx: typer.Context, rollout: Number, as_json: Json = False) -> None:
    """Say why a rollout is where it is, and what happens next."""
    session = session_of(ctx)
    found = session.api.get("rollouts", rollout, "explain")
    if as_json:
        session.out.json(found)
        return
    print_explanation(session, found)


@app.command()
def revert(
    ctx: typer.Context,
    rollout: Number,
    release: Annotated[
        str | None,
        typer.Option(help="The release to go back to; usually what most of these cameras ran before."),
    ] = None,
    key: Key = None,
    password_file: PasswordFile = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    watching: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Watch until the cameras are back.")
    ] = True,
) -> None:
    """Bring the old model back to the cameras that took this rollout's: signs it again as a newer release."""
    from fleetd.cli import again  # noqa: PLC0415  # help needs none of it

    session = session_of(ctx)
    view = session.api.get("rollouts", rollout)
    took = [one for one in view["assignments"] if one["state"] in ("confirmed", "trial")]
    before = Counter(one["was_release"] for one in took if one["was_release"])
    old = release or next((name for name, _ in before.most_common()), None)
    if not took or old is None:
        what = "No camera has taken it" if not took else "No camera has said what it ran before"
        raise CliError(
            f"{what}: rollout {rollout} cannot be reverted so. Nothing was changed.",
            "`--release` names what to go back to; `fleetctl releases list` shows what there is.",
            exit_code=UNUSABLE,
        )
    if not yes:
        typer.confirm(f"Bring {safe(old)} back to {counted(len(took), 'camera')}?", abort=True, err=True)
    signing = keystore.load(keystore.key_path(session.env, key), password_file)
    made = again.sign_again(session, old, signing, from_=[view["rollout"]["release_id"]])
    started = session.api.post("rollouts", rollout, "revert", body={"release": made["id"]})
    session.out.say(f"Rollout {started['id']} brings it back.")
    if watching:
        conclude(session, watch_rollout(session, started["id"]))


@app.command()
def delete(
    ctx: typer.Context,
    rollout: Number,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget a rollout that has ended; what cameras reverted and the audit trail are kept."""
    session = session_of(ctx)
    if not yes:
        typer.confirm(f"Forget rollout {rollout}?", abort=True, err=True)
    session.api.delete("rollouts", rollout)
    session.out.say(f"Rollout {rollout} is forgotten.")


def _blocks(one: dict[str, Any]) -> str | None:
    """How far a transfer is."""
    if one["state"] != "transferring" or not one["blocks_total"]:
        return None
    return f"{one['blocks_done'] or 0} of {one['blocks_total']}"


def _act(ctx: typer.Context, rollout: int, action: str) -> None:
    session = session_of(ctx)
    found = session.api.post("rollouts", rollout, action)
    session.out.say(f"Rollout {found['id']} is {safe(found['state'])}.")
