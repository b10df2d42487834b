"""The operator's signing key: a PEM file that only its owner can read, and its public half beside it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import typer

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.server import config_folder, write_private
from fleetd.cli.text import safe

if TYPE_CHECKING:  # the cryptography library takes a while to load
    from fleetd.bundles.signing import OperatorKey

PASSWORD_CHARS: Final = 1024
_PUBLIC: Final = re.compile(r"[0-9a-f]{128}")


class PublicHalf(NamedTuple):
    """What fleetd and cameras need to know of a key. Both in hex."""

    key_id: str
    public: str


def key_path(env: Mapping[str, str], given: Path | None) -> Path:
    """The key file that was named, or the usual one."""
    return given if given is not None else config_folder(env) / "keys" / "operator.pem"


def create(path: Path, password: str | None) -> PublicHalf:
    """Makes a key and writes both halves; an existing file is never replaced."""
    from fleetd.bundles.signing import OperatorKey  # noqa: PLC0415  # see above

    key = OperatorKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key.save(path, password)
    half = PublicHalf(key.key_id.hex(), key.public.hex())
    write_private(path.with_suffix(".pub"), f"{half.public}\n".encode())
    return half


def public_half(path: Path) -> PublicHalf:
    """The public half, from the file beside the key: it takes no password."""
    from fleetd.bundles.signing import key_id  # noqa: PLC0415  # see above

    beside = path.with_suffix(".pub")
    try:
        text = beside.read_text(encoding="ascii").strip().lower()
    except FileNotFoundError as error:
        raise CliError(
            f"There is no signing key at {path}.",
            "Make one with `fleetctl keys init`, or name it with --key.",
            exit_code=UNUSABLE,
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{beside} cannot be read: {error}.", exit_code=UNUSABLE) from error
    if not _PUBLIC.fullmatch(text):
        raise CliError(f"{beside} holds no public key.", "Restore it from its copy.", exit_code=UNUSABLE)
    return PublicHalf(key_id(bytes.fromhex(text)).hex(), text)


def load(path: Path, password_file: Path | None) -> "OperatorKey":
    """The private key, asking for its password when it has one and no file says it."""
    from fleetd.bundles.errors import KeyPasswordError  # noqa: PLC0415  # see above
    from fleetd.bundles.signing import OperatorKey  # noqa: PLC0415

    if not path.exists():
        raise CliError(
            f"There is no signing key at {path}.",
            "Make one with `fleetctl keys init`, or name it with --key.",
            exit_code=UNUSABLE,
        )
    if password_file is not None:
        return OperatorKey.load(path, read_password(password_file))
    try:
        return OperatorKey.load(path)
    except KeyPasswordError:  # it has one
        return OperatorKey.load(path, str(typer.prompt(f"Password of {path}", hide_input=True)))


def read_password(path: Path) -> str:
    """The first line of a password file."""
    try:
        with path.open(encoding="utf-8") as file:
            password = file.readline(PASSWORD_CHARS).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(
            f"The password file {path} cannot be read: {safe(error)}.", exit_code=UNUSABLE
        ) from error
    if not password:
        raise CliError(
            f"The first line of {path} is empty.", "It should hold the password.", exit_code=UNUSABLE
        )
    return password
