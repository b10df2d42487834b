"""The bench: a board on this machine's USB, watched, caught in its bootloader, and written to."""

import os
import select
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetd.boards.guides.hands import CATCH_S
from fleetd.boards.shape import BoardProfile
from fleetd.boards.usb import LINGERS_S
from fleetd.cli.errors import CliError
from fleetd.cli.flashing import Files, Prepared, Running, prepare, zero_file
from fleetd.cli.session import Session
from fleetd.cli.text import safe
from fleetd.cli.usb_devices import LOOK_SECONDS, Looker, UsbDevice, hidraw, in_words, sysfs

GONE_S: Final = 60.0
_CLAIM_SECONDS: Final = 1.0
# "get property 1" (its version) for NXP's bootloader: report 1, length 12, tag 7, two parameters. Any command makes
# it stay; starting blhost takes longer than the second that it waits.
CLAIM: Final = struct.pack("<BBHBBBBII", 1, 0, 12, 7, 0, 0, 2, 1, 0)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step at the bench, and in a few words why."""

    ok: bool
    detail: str
    usb: str = "unknown"


class Bench:
    """One board at this machine. Nothing is written without exactly one device that can be it."""

    def __init__(self, session: Session, board: BoardProfile, files: Files) -> None:
        self._session = session
        self.board = board
        self.files = files
        self._root = sysfs(session.env)
        self._dev = Path(session.env.get("FLEETCTL_DEV") or "/dev")
        self._looker = Looker(self._root)

    def state(self) -> str:
        """What USB shows of the board; "unknown" when it shows nothing: it may hang elsewhere.

        A bootloader has to stay: every start goes through it.
        """
        deadline = self._session.now() + 2 * LINGERS_S
        while True:
            found = {state for _, state in self._looker.of_board(self.board)}
            if found != {"bootloader"} or self._session.now() >= deadline:
                return found.pop() if len(found) == 1 else "unknown"
            self._session.sleep(LOOK_SECONDS)

    def wait(self, wanted: Sequence[str], timeout_s: float) -> Result:
        """Waits until USB shows the board in one of these states."""
        deadline = self._session.now() + timeout_s
        while True:
            found = [
                (device, state) for device, state in self._looker.of_board(self.board) if state in wanted
            ]
            if len(found) > 1:
                return Result(False, f"{len(found)} devices look like it: leave only one connected")
            if found:
                device, state = found[0]
                note = ""
                if state in ("bootloader", "interrupted") and self.board.recovery.tool == "nxp":
                    note = self._claim(device)
                return Result(True, f"USB shows {device.id} at port {device.port}{note}", state)
            if self._session.now() >= deadline:
                return Result(False, self._instead(wanted))
            self._session.sleep(LOOK_SECONDS)

    def ready(self, commands: Sequence[Mapping[str, Any]], zeros: Path) -> list[Prepared]:
        """The commands with their files, each file checked for this very board."""
        return prepare(commands, self.files, zeros)

    def catch_and_run(
        self, commands: Sequence[Mapping[str, Any]], wanted: Sequence[str]
    ) -> tuple[Result, Result | None]:
        """Catches the bootloader and goes on at once. Answers what became of catching, then of the commands."""
        with zero_file() as zeros:
            prepared = self.ready(commands, zeros)
            if (
                self.board.recovery.enter == "plug-in"
            ):  # with a double tap it is connected, perhaps in its bootloader
                early = self._wait_gone(wanted)
                if early is not None:
                    return early, None
            if self.board.recovery.tool == "dfu" and self.board.recovery.enter == "plug-in":
                return self._catch_with_dfu(prepared, wanted)
            caught = self.wait(wanted, CATCH_S)
            return caught, self._run_all(prepared) if caught.ok else None

    def _wait_gone(self, wanted: Sequence[str]) -> Result | None:
        """What is there before anybody was asked to plug in may be another board: it has to go first."""
        deadline, is_told = self._session.now() + GONE_S, False
        while True:
            early = [device for device, state in self._looker.of_board(self.board) if state in wanted]
            if not early:
                return None
            where = ", ".join(device.port for device in early)
            if self._session.now() >= deadline:
                return Result(False, f"a board was there already, at port {where}: leave only one connected")
            if not is_told:
                self._session.out.warn(
                    f"  Something is in its bootloader already, at port {where}: unplug it first."
                )
                is_told = True
            self._session.sleep(LOOK_SECONDS)

    def run(self, commands: Sequence[Mapping[str, Any]]) -> Result:
        """Runs commands, one after the other, until one fails."""
        with zero_file() as zeros:
            return self._run_all(self.ready(commands, zeros))

    def _run_all(self, prepared: Sequence[Prepared]) -> Result:
        if not prepared:
            return Result(False, "nothing to run: the files are missing")
        for command in prepared:
            there = self._looker.of_board(self.board)
            if len(there) > 1:
                return Result(False, f"{len(there)} devices look like it: leave only one connected")
            result = self._finish(self._start(command), command.timeout_s)
            if not result.ok:
                return result
        return Result(True, f"{len(prepared)} commands, the last one: {prepared[-1].line}")

    def _start(self, command: Prepared) -> Running:
        self._session.out.warn(f"$ {safe(command.line)}")
        return Running(command, self._session.env, lambda line: self._session.out.warn(f"  | {line}"))

    def _finish(self, running: Running, timeout_s: float) -> Result:
        command = running.command
        try:
            is_done = running.wait(timeout_s)
        except BaseException:
            running.stop()
            raise
        if not is_done:
            return Result(False, f"{command.line}: {running.why}")
        if command.then is not None:
            return self.wait([command.then], 30)
        return Result(True, command.line)

    def _catch_with_dfu(
        self, prepared: Sequence[Prepared], wanted: Sequence[str]
    ) -> tuple[Result, Result | None]:
        """dfu-util has to wait before the board is plugged in: its bootloader is there for two seconds only."""
        there = self._looker.of_board(self.board)
        if len(there) > 1:
            return Result(False, f"{len(there)} devices look like it: leave only one connected"), None
        if not prepared:
            return Result(False, "nothing to run: the files are missing"), None
        running = self._start(prepared[0])
        try:
            caught = self._see(running, wanted)
            if not caught.ok:
                running.stop()
                return caught, None
            first = self._finish(running, prepared[0].timeout_s + CATCH_S)
        except BaseException:
            running.stop()
            raise
        return caught, self._run_all(prepared[1:]) if first.ok and prepared[1:] else first

    def _see(self, running: Running, wanted: Sequence[str]) -> Result:
        """Waits, in real time, until the bootloader shows or the program has ended."""
        deadline = time.monotonic() + float(self._session.env.get("FLEETCTL_CATCH_SECONDS") or CATCH_S)
        while time.monotonic() < deadline:
            found = [
                (device, state) for device, state in self._looker.of_board(self.board) if state in wanted
            ]
            if len(found) > 1:
                return Result(False, f"{len(found)} devices look like it: leave only one connected")
            if found:
                return Result(True, f"USB shows {found[0][0].id} at port {found[0][0].port}", found[0][1])
            if running.is_over:  # it may have been quicker than this look
                well = running.wait(1)
                return Result(
                    well, running.command.line if well else f"{running.command.line}: {running.why}"
                )
            time.sleep(LOOK_SECONDS)
        return Result(False, self._instead(wanted))

    def _claim(self, device: UsbDevice) -> str:
        """Says something to NXP's bootloader at once, so that it stays. Answers a note when that did not work."""
        name = hidraw(self._root, device.port)
        if name is None:
            return " (no raw HID device: it may leave its bootloader again)"
        try:
            handle = os.open(self._dev / name, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            return f" ({self._dev / name}: {error.strerror}; docs/recovery.md has the udev rule)"
        try:
            os.write(handle, CLAIM)
            if select.select([handle], [], [], _CLAIM_SECONDS)[0]:
                os.read(handle, 64)
        except OSError as error:
            return f" (it did not take a command: {error.strerror})"
        finally:
            os.close(handle)
        return ""

    def _instead(self, wanted: Sequence[str]) -> str:
        """What USB shows in its place."""
        others = [one for one, _ in self._looker.look() if in_words(one)[0] != "-"]
        shown = ", ".join(f"{one.id} ({': '.join(in_words(one))}) at port {one.port}" for one in others)
        what = " or ".join(wanted)
        return f"{self.board.name} did not show as {what}; USB shows {safe(shown) or 'no board at all'}"


def find_drive(mounts: Path) -> list[Path]:
    """Mounted drives that an OpenMV firmware has made, by their marker file. Linux."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise CliError(
            "The list of mounted drives cannot be read here.", "Name the camera's drive with --mount."
        ) from error
    folders = [Path(line.split(" ")[1].replace("\\040", " ")) for line in lines if line.count(" ") >= 3]
    return [folder for folder in dict.fromkeys(folders) if _has_marker(folder)]


def _has_marker(folder: Path) -> bool:
    try:
        return (folder / ".openmv_disk").is_file()
    except OSError:
        return False
