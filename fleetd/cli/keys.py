"""`fleetctl keys`: the operator's signing key here, and the keys that fleetd accepts there."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

from fleetd.cli import keystore
from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.session import Json, session_of
from fleetd.cli.text import safe, when

app = typer.Typer(no_args_is_help=True, help="Signing keys: the private half never leaves your machine.")

Key = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="The key file; usually ~/.config/fleetctl/keys/operator.pem."),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="Read the key's password from this file."),
]


@app.command()
def init(
    ctx: typer.Context,
    key: Key = None,
    password_file: PasswordFile = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Store the key in the clear. For trials only.")
    ] = False,
) -> None:
    """Make a signing key, protected by a password. An existing one is never replaced."""
    session = session_of(ctx)
    path = keystore.key_path(session.env, key)
    if path.exists():
        raise CliError(
            f"{path} exists already and was left as it is.",
            "Use it, or name another file with --key.",
            exit_code=UNUSABLE,
        )
    password: str | None = None
    if no_password:
        session.out.warn("Whoever can read this file can sign models for your cameras.")
    elif password_file is not None:
        password = keystore.read_password(password_file)
    else:
        password = str(typer.prompt("Password for the new key", hide_input=True, confirmation_prompt=True))
    half = keystore.create(path, password)
    session.out.facts([("key", half.key_id), ("file", path)])
    session.out.warn("Keep a copy in a safe place. Next: `fleetctl keys trust` makes fleetd accept it.")


@app.command()
def show(ctx: typer.Context, key: Key = None, as_json: Json = False) -> None:
    """Show the public half of your key."""
    session = session_of(ctx)
    path = keystore.key_path(session.env, key)
    half = keystore.public_half(path)
    if as_json:
        session.out.json({**half._asdict(), "file": str(path)})
    else:
        session.out.facts([("key", half.key_id), ("public", half.public), ("file", path)])


@app.command()
def ring(ctx: typer.Context, as_json: Json = False) -> None:
    """Show which keys cameras trust, by which record, and who lags behind."""
    session = session_of(ctx)
    found = session.api.get("keys", "ring")
    names = {one["public"]: f"{one['key_id']} ({one['name']})" for one in session.api.get("keys")}
    cameras = session.api.get("cameras")
    behind = [str(one["name"]) for one in cameras if (one["key_serial"] or 0) < int(found["serial"])]
    if as_json:
        session.out.json({**found, "behind": behind})
        return
    record = f"{found['serial']}, epoch {found['epoch']}" if found["serial"] else "none; as provisioned"
    session.out.facts(
        [
            ("record", record),
            ("keys", ", ".join(safe(names.get(one, one[:16])) for one in found["keys"]) or None),
            ("recovery", ", ".join(one[:16] for one in found["recovery"]) or None),
            ("lag behind", ", ".join(map(safe, behind)) or None),
        ]
    )


@app.command()
def trust(
    ctx: typer.Context,
    public: Annotated[
        str | None,
        typer.Argument(metavar="[PUBLIC]", help="Someone's .pub file or its text, instead of yours."),
    ] = None,
    key: Key = None,
    name: Annotated[str | None, typer.Option(help="Whose key it is; usually your user name.")] = None,
) -> None:
    """Make fleetd accept releases that this key signed. Takes an admin's token."""
    session = session_of(ctx)
    if public is None:
        public = keystore.public_half(keystore.key_path(session.env, key)).public
    elif Path(public).is_file():
        public = keystore.public_half(Path(public)).public
    found = session.api.post("keys", body={"public": public.lower(), "name": name or getpass.getuser()})
    session.out.say(f"fleetd accepts releases signed with {safe(found['key_id'])} ({safe(found['name'])}).")
    session.out.warn("Cameras must know the key too: it is part of provisioning them.")


@app.command("list")
@app.command("ls", hidden=True)
def list_keys(ctx: typer.Context, as_json: Json = False) -> None:
    """List the keys fleetd knows, revoked ones too."""
    session = session_of(ctx)
    found = session.api.get("keys")
    if as_json:
        session.out.json(found)
        return
    try:
        mine = keystore.public_half(keystore.key_path(session.env, None)).key_id
    except CliError:  # no key here: none of them is ours
        mine = ""
    session.out.table(
        ("key", "name", "added", "revoked", "yours"),
        (
            (
                one["key_id"],
                one["name"],
                when(one["added_at"]),
                when(one["revoked_at"]),
                "yes" if one["key_id"] == mine else "",
            )
            for one in found
        ),
        empty="fleetd accepts no key yet. `fleetctl keys init` makes one, `fleetctl keys trust` registers it.",
    )


@app.command()
def revoke(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, see `fleetctl keys list`.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Accept nothing more from a key and halt its rollouts. Cameras keep what they run."""
    session = session_of(ctx)
    if not yes:
        typer.confirm(f"Accept nothing more that {safe(key_id)} signed, and halt its rollouts?", abort=True)
    session.api.delete("keys", key_id)
    session.out.say(f"Revoked {safe(key_id)}: fleetd accepts nothing more from it.")
    session.out.warn(
        f"Cameras do not know yet. `fleetctl keys rotate --drop {safe(key_id)}` tells them; if it was your only key, "
        "`fleetctl keys rotate` gives them a new one."
    )
