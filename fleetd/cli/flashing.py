"""Files and programs that bring a board back: found, checked, run, and stopped when they take too long.

Firmware and loaders are OpenMV's and are never shipped with fleetd: they are given by path, or found in an
installation of OpenMV IDE.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fleetd.boards import images
from fleetd.boards.shape import BoardProfile
from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.text import safe

ZEROS: Final = "zeros"
ZEROS_BYTES: Final = 4096
ERASE_BYTES: Final = 0x1000
IMAGE_BYTES: Final = 32 * 1024 * 1024
TAIL_LINES: Final = 12  # of a program's output, for an error
_PLACES: Final = (  # of OpenMV IDE's firmware folder
    "{home}/openmvide*/share/qtcreator/firmware",
    "{home}/OpenMV*/share/qtcreator/firmware",
    "/opt/openmvide*/share/qtcreator/firmware",
    "/opt/openmv*/share/qtcreator/firmware",
    "/Applications/OpenMV IDE.app/Contents/Resources/firmware",
    "{home}/Applications/OpenMV IDE.app/Contents/Resources/firmware",
)
_INSTALL: Final = {
    "dfu-util": "Debian and Ubuntu: apt install dfu-util. macOS: brew install dfu-util.",
    "sdphost": "pip install 'fleetd[recovery]' (NXP's spsdk).",
    "blhost": "pip install 'fleetd[recovery]' (NXP's spsdk).",
}


@dataclass(slots=True)
class Files:
    """Where the board's files are: given by path, else in OpenMV IDE, `ide` or wherever it is installed."""

    board: BoardProfile
    given: Mapping[str, Path]
    ide: Path | None
    home: Path
    _checked: dict[str, tuple[Path, int]] = field(default_factory=dict)

    def find(self, role: str) -> Path | None:
        """The file for a role; None when there is none."""
        if role in self.given:
            if not self.given[role].is_file():
                raise CliError(f"There is no file {safe(self.given[role])}.", exit_code=UNUSABLE)
            return self.given[role]
        if self.board.firmware is None or role not in images.ROLES:
            return None
        for folder in self._folders():
            found = folder / self.board.firmware.folder / images.ROLES[role]
            if found.is_file():
                return found
        return None

    def checked(self, role: str) -> tuple[Path, int] | None:
        """The file and its length, after it was found to be this board's; None when there is none."""
        if role not in self._checked:
            path = self.find(role)
            if path is None:
                return None
            with path.open("rb") as file:
                data = file.read(IMAGE_BYTES + 1)
            images.check(self.board, role, path, data)
            self._checked[role] = path, len(data)
        return self._checked[role]

    def _folders(self) -> Iterator[Path]:
        if self.ide is not None:
            yield self.ide
            yield self.ide / "share" / "qtcreator" / "firmware"
            return
        for place in _PLACES:
            pattern = place.format(home=self.home)
            base, _, rest = pattern.partition("*")
            if not rest:
                yield Path(pattern)
                continue
            parent, start = Path(base).parent, Path(base).name
            tail = rest.partition("/")[2]
            yield from sorted((one / tail for one in parent.glob(f"{start}*")), reverse=True)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A command line, ready to be run."""

    argv: tuple[str, ...]
    does: str
    timeout_s: float
    may_fail: bool
    then: str | None

    @property
    def line(self) -> str:
        """As one would type it."""
        return " ".join(self.argv)


def prepare(commands: Sequence[Mapping[str, Any]], files: Files, zeros: Path) -> list[Prepared]:
    """The commands with their files. CliError, WrongImageError: a file is missing, or not this board's."""
    found = []
    for command in commands:
        known: dict[str, tuple[Path, int]] = {ZEROS: (zeros, ZEROS_BYTES)}
        missing = []
        for role in command["files"]:
            checked = known.get(role) or files.checked(role)
            if checked is None:
                missing.append(role)
            else:
                known[role] = checked
        if missing and command["optional"]:
            continue
        if missing:
            name = images.ROLES.get(missing[0], missing[0])
            raise CliError(
                f"The file {name} of {files.board.name} is not here.",
                f"Give it with --{missing[0]} FILE, or the folder of OpenMV IDE with --ide.",
                exit_code=UNUSABLE,
            )
        found.append(
            Prepared(
                argv=tuple(_filled(part, known) for part in command["argv"]),
                does=command["does"],
                timeout_s=command["timeout_s"],
                may_fail=command["may_fail"],
                then=command["then"],
            )
        )
    return found


def shown(commands: Sequence[Mapping[str, Any]], files: Files) -> list[str]:
    """The commands for people, with what is known of the files and without touching anything."""
    lines = []
    for command in commands:
        known = {ZEROS: (Path("zeros.bin"), ZEROS_BYTES)}
        for role in command["files"]:
            path = None if role == ZEROS else files.find(role)
            if path is not None:
                known[role] = path, path.stat().st_size
        lines.append(" ".join(_filled(part, known) for part in command["argv"]))
    return lines


def _filled(part: str, known: Mapping[str, tuple[Path, int]]) -> str:
    if not part.startswith("{"):
        return part
    name = part[1:-1]
    if name.startswith("len:"):
        role = name.removeprefix("len:")
        if role not in known:
            return part
        return f"0x{-(-known[role][1] // ERASE_BYTES) * ERASE_BYTES:X}"
    return str(known[name][0]) if name in known else part


@contextmanager
def zero_file() -> Iterator[Path]:
    """A file of zeros, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="fleetctl-") as folder:
        path = Path(folder) / "zeros.bin"
        path.write_bytes(bytes(ZEROS_BYTES))
        yield path


def missing_tools(commands: Sequence[Mapping[str, Any]], path: str | None) -> list[tuple[str, str]]:
    """Programs that are not installed, and how to get them."""
    names = dict.fromkeys(str(command["argv"][0]) for command in commands)
    return [(name, _INSTALL.get(name, "")) for name in names if _which(name, path) is None]


def _which(name: str, path: str | None) -> str | None:
    """Where a program is: on the path, else beside this Python, where pip puts blhost and sdphost."""
    return shutil.which(name, path=path) or shutil.which(name, path=str(Path(sys.executable).parent))


class Running:
    """A program that was started. Its output goes to `say`, a line at a time."""

    def __init__(self, command: Prepared, env: Mapping[str, str], say: Callable[[str], None]) -> None:
        self.command = command
        program = _which(command.argv[0], env.get("PATH"))
        if program is None:
            raise CliError(f"{command.argv[0]} is not installed.", _INSTALL.get(command.argv[0], ""))
        self._tail: list[str] = []
        self._say = say
        self._process = subprocess.Popen(
            [program, *command.argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in env.items() if not name.startswith("FLEETCTL_TOKEN")},
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._started = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def wait(self, timeout_s: float) -> bool:
        """True when it ended well in time; else it is stopped, and `why` says what was wrong."""
        try:
            code = self._process.wait(max(0.1, timeout_s - (time.monotonic() - self._started)))
        except subprocess.TimeoutExpired:
            self.stop()
            self._tail.append(f"It was not done after {timeout_s:.0f} seconds and was stopped.")
            return False
        self._reader.join(5)
        return code == 0 or self.command.may_fail

    def stop(self) -> None:
        """Ends it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(5)

    @property
    def why(self) -> str:
        """The last that it said."""
        return " / ".join(self._tail[-3:]) or f"exit code {self._process.returncode}, without a word"

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        with self._process.stdout as output:
            for line in output:
                text = safe(line.rstrip("\n"))[:300]
                if text:
                    self._tail = [*self._tail[-TAIL_LINES:], text]
                    self._say(text)
