"""Stand-ins for dfu-util, sdphost and blhost: strict about their arguments, and they do to the virtual board what the
real ones would do to a real one. Faults: `fail-at` N (the N-th call fails), `slow` (seconds), `stuck` (what was started
does not appear).
"""

import os
import time
from pathlib import Path

from tests.bench.virtual_board import VirtualBoard

WAIT_S = 60.0


def main(tool: str, arguments: list[str]) -> int:
    board = VirtualBoard(Path(os.environ["FLEETD_FAKE_BOARD"]))
    line = " ".join([tool, *arguments])
    assert "efuse" not in line, "a fuse was to be burned"
    with board.changing() as state:
        state["log"].append(line)
        calls, faults = len(state["log"]), dict(state["faults"])
    time.sleep(faults.get("slow", 0))
    if faults.get("fail-at") == calls:
        return _say(f"{tool}: injected failure")
    return {"dfu-util": _dfu, "sdphost": _sdphost, "blhost": _blhost}[tool](board, arguments)


def _say(text: str, code: int = 1) -> int:
    print(text, flush=True)
    return code


def _usage(text: str) -> int:
    return _say(f"usage error: {text}", 64)


def _heard(board: VirtualBoard, what: str) -> None:
    with board.changing() as state:
        state["heard"].append(what)


# --- NXP ------------------------------------------------------------------------------------------------------


def _sdphost(board: VirtualBoard, arguments: list[str]) -> int:
    if arguments[:3] != ["-u", "0x1FC9,0x0135", "--"]:
        return _usage("sdphost -u 0x1FC9,0x0135 -- COMMAND")
    if board.state["mode"] != "rom":
        return _say("Error: UsbHidPeripheral() cannot open USB HID device (vid=0x1fc9, pid=0x135)")
    match arguments[3:]:
        case ["write-file", "0x20001C00", file]:
            board.change(setup="loaded" if Path(file).read_bytes() else None)
            return _say("Response: 0x88888888", 0)
        case ["jump-address", "0x20001C00"]:
            if board.state["setup"] != "loaded":
                return _say("there is nothing to start")
            if "stuck" not in board.state["faults"]:
                with board.moment():
                    board.show("bootloader")
                    board.change(loader=True, setup=None)
            return _say("OK", 0)
    return _usage(f"sdphost knows no {arguments[3:]}")


def _blhost(board: VirtualBoard, arguments: list[str]) -> int:
    if arguments[:2] != ["-u", "0x15A2,0x0073"]:
        return _usage("blhost -u 0x15A2,0x0073")
    rest = arguments[2:]
    if rest[:2] == ["-t", "120000"]:
        rest = rest[2:]
    if rest[:1] != ["--"]:
        return _usage("-- comes before the command")
    if board.state["mode"] != "bootloader":
        return _say("Error: UsbHidPeripheral() cannot open USB HID device (vid=0x15a2, pid=0x73)")
    _heard(board, rest[1])
    state = board.state
    match rest[1:]:
        case ["fill-memory", "0x2000", "4", word, "word"] if word in ("0xC0000008", "0xF000000F"):
            board.change(filled=word)
            return _say("Success", 0)
        case ["configure-memory", "9", "0x2000"]:
            board.change(setup=state["filled"])
            return _say("Success", 0)
        case ["flash-erase-region", start, length]:
            if state["loader"] and state["setup"] is None:
                return _say("Response status = 10200: memory is not configured")
            return _erase(board, int(start, 16), int(length, 16))
        case ["write-memory", start, file]:
            return _write(board, int(start, 16), Path(file).read_bytes())
        case ["reset"]:
            board.boot()
            return _say("Success", 0)
    return _usage(f"blhost knows no {rest[1:]}")


def _at(board: VirtualBoard, start: int) -> str | None:
    return next((part["name"] for part in board.state["flash"] if part["start"] == start), None)


def _erase(board: VirtualBoard, start: int, length: int) -> int:
    name = _at(board, start)
    if name is None or length % 0x1000 or not length:
        return _say(f"Response status = 101: no such region {start:#x} {length:#x}")
    with board.changing() as state:
        state["erased"].append([start, length])
        if name != "fcb":
            state["parts"][name] = "erased"
    return _say("Success", 0)


def _write(board: VirtualBoard, start: int, data: bytes) -> int:
    name, state = _at(board, start), board.state
    room = next((length for at, length in reversed(state["erased"]) if at == start), 0)
    if name is None or len(data) > room:
        return _say("Response status = 10203: the region is not erased")
    board.part(name, "good")
    return _say(f"Wrote {len(data)} of {len(data)} bytes.", 0)


# --- DFU ------------------------------------------------------------------------------------------------------


def _dfu(board: VirtualBoard, arguments: list[str]) -> int:
    if arguments[:2] != ["-w", "-d"]:
        return _usage("dfu-util -w -d ,VID:PID")
    usb_id, rest = arguments[2].lstrip(",").upper(), arguments[3:]
    alt, address, leave, file = None, None, False, None
    while rest:
        match rest:
            case ["-a", number, *rest]:
                alt = int(number)
            case ["-s", where, *rest]:
                number, _, option = where.partition(":")
                address, leave = int(number, 16), option == "leave"
            case ["--reset", *rest]:
                leave = True
            case ["-D", name, *rest]:
                file = Path(name)
            case _:
                return _usage(f"dfu-util knows no {rest}")
    if alt is None or file is None:
        return _usage("-a and -D are needed")
    deadline = time.monotonic() + WAIT_S
    while not (there := [one for one in _ids(board) if one == usb_id]):
        if time.monotonic() > deadline:
            return _say("nobody plugged anything in", 74)
        time.sleep(0.01)
    if len(there) > 1:
        return _say("More than one DFU capable USB device found! Try `--list'", 74)
    _heard(board, "dfu")
    return _download(board, usb_id, alt, address, file.read_bytes(), leave=leave)


def _download(
    board: VirtualBoard, usb_id: str, alt: int, address: int | None, data: bytes, *, leave: bool
) -> int:
    if usb_id == "0483:DF11":
        if (alt, address) != (0, 0x08000000):
            return _say("Error: last page is not writeable")
        board.part("bootloader", "good")
        return _say("dfu-util: Error during download get_status", 74)  # normal, the vendor says
    if (alt, address) == (0, 0x08020000):
        return _say("File downloaded successfully", 0)
    parts = [p["name"] for p in board.state["flash"] if p["alt"] == alt and p["address"] == address]
    if not parts or parts[0] == "bootloader":
        return _say(f"Cannot open DFU interface: alternate setting {alt} does not exist or is read-only")
    if parts[0] == "storage":
        assert data == bytes(4096)
        board.part("storage", "erased")
    else:
        board.part(parts[0], "good")
    if leave:
        with board.moment():
            board.show("bootloader")
            if board.state["parts"]["firmware"] == "good":
                board.start_firmware()
    return _say("File downloaded successfully", 0)


def _ids(board: VirtualBoard) -> list[str]:
    found = []
    for folder in (board.folder / "sys" / "bus" / "usb" / "devices").iterdir():
        try:
            vendor, device = (folder / "idVendor").read_text(), (folder / "idProduct").read_text()
        except OSError:
            continue
        found.append(f"{vendor.strip()}:{device.strip()}".upper())
    return found
