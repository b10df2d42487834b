"""`fleetctl keys rotate`: other keys for the cameras, over the air, by a record that a present key signs."""

import getpass
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fleetd.cli import keystore
from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.keys import Key, PasswordFile
from fleetd.cli.session import Json, Session, session_of
from fleetd.cli.text import counted, safe

_PUBLIC: Final = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Change:
    """What cameras are to trust from now on; `fresh`: where a new key was made that is to replace ours."""

    keys: Sequence[str]
    recovery: Sequence[str]
    epoch: int
    dropped: Sequence[str]
    fresh: Path | None


def rotate(
    ctx: typer.Context,
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="PUBLIC", help="Trust this key too: 128 hex digits, or a .pub file."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="KEY", help="Trust this key no more (its id).")
    ] = None,
    recovery: Annotated[
        list[str] | None,
        typer.Option(metavar="PUBLIC", help="From now on only this key signs such records; keep it offline."),
    ] = None,
    sign_with: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The key that signs the record; usually yours.")
    ] = None,
    key: Key = None,
    password_file: PasswordFile = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Store a new key in the clear. For trials only.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Give all cameras other keys over the air. Without --add, --drop or --recovery a new key replaces yours."""
    from fleetd.bundles.keyrecords import make_record  # noqa: PLC0415  # takes libraries that help does not need

    session = session_of(ctx)
    path = keystore.key_path(session.env, key)
    signing_path = sign_with or path
    ring, known = session.api.get("keys", "ring"), session.api.get("keys")
    signer = keystore.public_half(signing_path)
    _check_signer(signer, ring, known)
    if add or drop or recovery is not None:
        change = _edited(ring, known, add or [], drop or [], recovery)
        secret = password_file
    else:
        change, secret = _replaced(session, path, ring, known, password_file, no_password=no_password)
    _explain(session, change)
    if not yes:
        typer.confirm("Tell all cameras?", abort=True, err=True)
    signing = keystore.load(signing_path, secret if sign_with is None else password_file)
    record = make_record(
        signing,
        serial=int(ring["serial"]) + 1,
        epoch=change.epoch,
        created=int(session.now()),
        keys=change.keys,
        recovery=change.recovery,
    )
    made = session.api.post("keys", "records", body={"record": record.hex(), "name": getpass.getuser()})
    kept = _put_in_place(path, change.fresh) if change.fresh is not None else None
    if as_json:
        session.out.json({**made, "former_key": None if kept is None else str(kept)})
        return
    session.out.say(
        f"Key record {made['serial']}, epoch {made['epoch']}: cameras trust {counted(len(made['keys']), 'key')}."
    )
    if kept is not None:
        session.out.warn(f"Your new key is {path}; keep a copy in a safe place. The former one is {kept}.")
    session.out.warn(
        "Cameras that are off follow when they come back. `fleetctl keys ring` says who lags behind."
    )


def _check_signer(signer: keystore.PublicHalf, ring: dict[str, Any], known: Sequence[dict[str, Any]]) -> None:
    may = ring["recovery"] or ring["keys"] or [one["public"] for one in known]
    if int(ring["serial"]) == 0:
        may = [one["public"] for one in known]
    if signer.public not in may:
        which = "a recovery key" if ring["recovery"] else "a key that cameras trust"
        raise CliError(
            f"Cameras would not follow {signer.key_id}: the record has to be signed with {which}.",
            "Name it with --sign-with FILE. Nothing was changed.",
            exit_code=UNUSABLE,
        )


def _edited(
    ring: dict[str, Any],
    known: Sequence[dict[str, Any]],
    add: Sequence[str],
    drop: Sequence[str],
    recovery: Sequence[str] | None,
) -> Change:
    """The present keys with these changes."""
    by_id = {one["key_id"]: one["public"] for one in known}
    unknown = [one for one in drop if one not in by_id]
    if unknown:
        raise CliError(
            f"There is no key {safe(unknown[0])}. Nothing was changed.",
            "`fleetctl keys list` shows them.",
            exit_code=UNUSABLE,
        )
    gone = {by_id[one] for one in drop}
    keys = [one for one in (*ring["keys"], *map(_public, add)) if one not in gone]
    if not keys:
        raise CliError(
            "No key would be left. Nothing was changed.",
            "`fleetctl keys rotate` without --drop puts a new key in the place of yours.",
            exit_code=UNUSABLE,
        )
    others = ring["recovery"] if recovery is None else [_public(one) for one in recovery]
    return _change(ring, known, keys, others, None)


def _replaced(
    session: Session,
    path: Path,
    ring: dict[str, Any],
    known: Sequence[dict[str, Any]],
    password_file: Path | None,
    *,
    no_password: bool,
) -> tuple[Change, Path | None]:
    """A new key in the place of ours. It lies beside it until cameras are told; one that lies there is used."""
    fresh = path.with_name(f"{path.stem}-next.pem")
    if not fresh.exists():
        password: str | None = None
        if password_file is not None:
            password = keystore.read_password(password_file)
        elif not no_password:
            password = str(
                typer.prompt("Password for the new key", hide_input=True, confirmation_prompt=True)
            )
        keystore.create(fresh, password)
    else:
        session.out.warn(f"Using the key that an unfinished run has made: {fresh}.")
    new = keystore.public_half(fresh).public
    mine = keystore.public_half(path).public if path.with_suffix(".pub").exists() else None
    revoked = {one["public"] for one in known if one["revoked_at"] is not None}
    keys = [one for one in ring["keys"] if one != mine and one not in revoked]
    return _change(ring, known, [*keys, new], ring["recovery"], fresh), password_file


def _change(
    ring: dict[str, Any],
    known: Sequence[dict[str, Any]],
    keys: Sequence[str],
    recovery: Sequence[str],
    fresh: Path | None,
) -> Change:
    """With a key that goes, a new epoch begins: whatever numbers it signed count no more."""
    before = set(ring["keys"])
    if int(ring["serial"]) == 0:  # cameras may know what was revoked here
        before |= {one["public"] for one in known}
    ids = {one["public"]: one["key_id"] for one in known}
    dropped = sorted(ids.get(one, one[:16]) for one in before - set(keys))
    return Change(keys, recovery, int(ring["epoch"]) + bool(dropped), dropped, fresh)


def _explain(session: Session, change: Change) -> None:
    if not change.dropped:
        return
    session.out.warn(f"Cameras will take nothing more that {', '.join(map(safe, change.dropped))} signed.")
    releases = {one["id"] for one in session.api.get("releases") if one["key_id"] in change.dropped}
    rollouts = session.api.get("rollouts")
    under_way = [
        one for one in rollouts if one["state"] in {"running", "paused"} and one["release_id"] in releases
    ]
    for one in under_way:
        session.out.warn(
            f"Rollout {one['id']} of {safe(one['release_id'])} will halt: push the model again then."
        )


def _put_in_place(path: Path, fresh: Path) -> Path | None:
    """The new key takes the name of the former one, which is kept under its id."""
    kept = None
    if path.exists():
        former = keystore.public_half(path).key_id
        kept = path.with_name(f"{path.stem}-{former}.pem")
        path.with_suffix(".pub").rename(kept.with_suffix(".pub"))
        path.rename(kept)
    fresh.rename(path)
    fresh.with_suffix(".pub").rename(path.with_suffix(".pub"))
    return kept


def _public(text: str) -> str:
    """A public key as it was given: in hex, or the file that holds it."""
    if not _PUBLIC.fullmatch(text.lower()):
        path = Path(text)
        return keystore.public_half(path).public if path.suffix in {".pub", ".pem"} else _refuse(text)
    return text.lower()


def _refuse(text: str) -> str:
    raise CliError(
        f"{safe(text)!r} is no public key.",
        "Give 128 hex digits, or the .pub file that `fleetctl keys init` made.",
        exit_code=UNUSABLE,
    )
