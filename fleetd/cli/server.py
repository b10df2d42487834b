"""Which fleetd to talk to and with which token: options, environment, `fleetctl login`, a local fleetd.

A token found in a file goes only to the server it was stored with. Otherwise `--url` of another machine
would send it there.
"""

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fleetd.cli.errors import UNUSABLE, CliError

STATE_DIR: Final = "fleetd-data"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Server:
    """Where fleetd is, who we are there, and where both were found."""

    url: str
    token: str
    origin: str
    warning: str = ""


def find_server(*, url: str | None, token_file: Path | None, env: Mapping[str, str], folder: Path) -> Server:
    """The server to use. Each of URL and token comes from the first place that has it; CliError if none."""
    saved = _saved(env)
    local = _local(env, folder)
    chosen = url or env.get("FLEETCTL_URL")
    origin = "--url" if url else "FLEETCTL_URL"
    if not chosen:
        for place, name in ((saved, "fleetctl login"), (local, "the fleetd in this folder")):
            if place is not None:
                chosen, origin = place[0], name
                break
    if not chosen:
        raise CliError(
            "It is not known where fleetd is.",
            "Run `fleetctl login http://HOST:8080`, give --url, or start where fleetd's state folder is.",
            exit_code=UNUSABLE,
        )
    address = normal_url(chosen)
    token, warning = _given_token(token_file, env)
    if token is None:
        for place in (saved, local):
            if place is not None and normal_url(place[0]) == address:
                token = place[1]
                break
    if token is None:
        raise CliError(
            f"There is no token for {address}.",
            f"Run `fleetctl login {address}`, or give --token-file or FLEETCTL_TOKEN_FILE.",
            exit_code=UNUSABLE,
        )
    return Server(address, token, origin, warning)


def normal_url(text: str) -> str:
    """`http://host:port` as it is compared and stored; CliError when it is none."""
    parts = urlsplit(text.strip())
    try:
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise CliError(
            f"{text!r} is no address of a fleetd.", "It looks like http://HOST:8080.", exit_code=UNUSABLE
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    """Whether the address stays on this machine."""
    return (urlsplit(url).hostname or "") in LOOPBACK


def config_folder(env: Mapping[str, str]) -> Path:
    """Where fleetctl keeps its own files."""
    base = env.get("XDG_CONFIG_HOME")
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    return (Path(base) if base else home / ".config") / "fleetctl"


def read_token(path: Path) -> str:
    """The token in a file, without surrounding space."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(
            f"The token file {path} cannot be read: {error}.",
            "Check the path and that the file is yours.",
            exit_code=UNUSABLE,
        ) from error
    if not text or not text.isascii() or not text.isprintable() or len(text) > 256:
        raise CliError(
            f"The file {path} holds no token.",
            "It should hold the token alone, as `fleetctl tokens create` showed it.",
            exit_code=UNUSABLE,
        )
    return text


def save_login(env: Mapping[str, str], url: str, token: str) -> Path:
    """Remembers a server and its token in a file only the user can read."""
    path = config_folder(env) / "config.json"
    write_private(path, json.dumps({"url": url, "token": token}, indent=2).encode() + b"\n")
    return path


def write_private(path: Path, data: bytes) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error}.", "Check the folder and the disk.") from error


def _given_token(token_file: Path | None, env: Mapping[str, str]) -> tuple[str | None, str]:
    if token_file is None and env.get("FLEETCTL_TOKEN"):
        return env["FLEETCTL_TOKEN"].strip(), ""
    path = token_file or (Path(env["FLEETCTL_TOKEN_FILE"]) if env.get("FLEETCTL_TOKEN_FILE") else None)
    if path is None:
        return None, ""
    token = read_token(path)
    wide = stat.S_IMODE(path.stat().st_mode) & 0o077
    return token, f"Others on this machine can read {path}: chmod 600 it." if wide else ""


def _saved(env: Mapping[str, str]) -> tuple[str, str] | None:
    """URL and token that `fleetctl login` stored."""
    path = config_folder(env) / "config.json"
    content = _json(path)
    if content is None:
        return None
    url, token = content.get("url"), content.get("token")
    if not isinstance(url, str) or not isinstance(token, str):
        raise CliError(
            f"{path} does not say where fleetd is.", "Run `fleetctl login URL` again.", exit_code=UNUSABLE
        )
    return url, token


def _local(env: Mapping[str, str], folder: Path) -> tuple[str, str] | None:
    """URL and first admin token of a fleetd whose state folder is here and readable."""
    state = Path(env.get("FLEETD_STATE_DIR") or folder / STATE_DIR)
    endpoint = _json(state / "endpoint.json")
    if endpoint is None or not isinstance(endpoint.get("url"), str):
        return None
    try:
        return endpoint["url"], read_token(state / "admin.token")
    except CliError:
        return None  # someone else's fleetd: its folder is here, its token is not ours to read


def _json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None when there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CliError(f"{path} cannot be read: {error}.", "Repair or delete it.") from error
    return content if isinstance(content, dict) else {}
