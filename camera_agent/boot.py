"""The first thing at a start: which agent runs, the one on the drive or one that came over the air, and how.

    facts = choose()       # never raises; afterwards `import camera_agent.start` finds the right one

main.py calls it from the files on the drive, and these are never changed over the air, so that a broken agent cannot
break the way back. What it tells the agent is a dict, to which newer versions may add:

    slot        0: the files on the drive, 1 or 2: a slot
    trial       the agent has to prove itself (camera_agent/agents.py), or the next start goes back
    safe        safe mode: no camera, no model (camera_agent/guard.py)
    release     {"id", "digest", "manifest", "sequence", "epoch", "slot"} of what runs, or None for the files
    confirmed   the same of the agent that is confirmed
    ended       {"id", "digest", "generation", "reason"} of an agent whose trial is over, or None
    problem     a word for the status, or None
    watchdog    the hardware's watchdog if it runs already, or None

A slot is what camera_agent/slots.py describes; boot records are like its pointers. The signature was checked when the
slot was written, and again before its first start; here its CRC and the content's SHA-256 have to hold.

RAM BUDGET: with what it imports about 18 KB of code, forgotten when an agent from a slot runs; one buffer of 4 KB.
"""

import json
import struct
import sys
from binascii import crc32
from hashlib import sha256

from camera_agent import board
from camera_agent.crypto import hexed
from camera_agent.guard import plan
from camera_agent.heap import const, firmware
from camera_agent.pointer import POINTER_BYTES, decode_pointer, encode_pointer, newest, release_mark
from camera_agent.regions import (
    AGENT_NAMES,
    BLOCK,
    CONTENT_OFFSET,
    FileRegion,
    Files,
    StorageError,
    exists,
)

MOUNT = "/fleet_agent"
_PACKAGE = "camera_agent"
_WATCHDOG_MS = const(60_000)
_HEAD_BYTES = const(16)
_MANIFEST_BYTES = const(8192)
_SIGNED_HEAD = const(76)  # magic, key id, signature
_CONFIG_BYTES = const(8192)


class _Found:
    """A slot that is in order."""

    def __init__(self, number, region, manifest, digest):
        self.release = manifest["release"]
        self.epoch = manifest["epoch"]
        self.sequence = manifest["sequence"]
        self.mark = release_mark(self.release)
        self.region = region
        self.size = manifest["content"]["size"]
        self.facts = {
            "id": self.release,
            "digest": manifest["content"]["sha256"],
            "manifest": digest,
            "sequence": self.sequence,
            "epoch": self.epoch,
            "slot": "ab"[number - 1],
        }


def choose(storage=None, cause=None, use=None):
    """Decide, write down what has to be, make the right agent the one that is imported. Answers the facts.

    A camera finds out the three by itself; the desk says where its storage is, why it starts, and has its own
    `use(slot, machine, facts)`."""
    facts = blank_facts()
    files = None
    try:
        files = open_files(storage or board.storage())
        if files is not None:
            choose_from(files, facts, cause, use or _use)
    except Exception as error:  # whatever it is: the files on the drive are the way out
        _show(error)
        facts["slot"], facts["release"], facts["problem"] = 0, None, "boot-record-unusable"
    if files is not None:
        mounted = () if use else (None, "agent_a", "agent_b")[facts["slot"] : facts["slot"] + 1]
        for name in AGENT_NAMES:
            region = getattr(files, name)
            if region is not None and name not in mounted:
                region.close()
    return facts


def blank_facts():
    """What is true when there is nothing to choose from."""
    facts = {"slot": 0, "trial": False, "safe": False, "release": None, "confirmed": None}
    facts.update({"ended": None, "problem": None, "watchdog": None})
    return facts


def open_files(storage):
    """Boot records and agent slots, as far as they exist already; None where there are none."""
    vfs = firmware("vfs")
    if hasattr(vfs, "rom_ioctl") and not exists(storage + "/fleet/boot_0.bin"):
        from camera_agent import rawflash

        return rawflash.open_tail(vfs, firmware("uctypes"))
    files = Files()
    try:
        for name in AGENT_NAMES:
            setattr(files, name, FileRegion("%s/fleet/%s.bin" % (storage, name)))
    except StorageError:
        files.close()
        return None
    return files


def choose_from(files, facts, cause, use):
    """choose() for these regions: fills in the facts."""
    machine = firmware("machine")
    buffer = memoryview(bytearray(BLOCK))
    copies = [_read_copy(files.boot_0), _read_copy(files.boot_1)]
    which = newest(copies[0], copies[1])
    pointer = None if which is None else copies[which]
    looked = {}

    def look(number):
        if number not in looked:
            looked[number] = _look(number, (None, files.agent_a, files.agent_b)[number], buffer)
        return looked[number]

    made = plan(pointer, look, cause or board.reset_word(machine))
    if made.pointer is not None:
        try:
            _write(files, which, pointer, made.pointer, buffer)
        except StorageError as error:
            _show(error)
            facts["problem"] = "boot-record-unusable"
            if made.trial:  # its attempt could not be counted, so it must not run
                made.slot, made.trial = 0, False
    facts["safe"], facts["trial"] = made.safe, made.trial
    facts["problem"] = facts["problem"] or made.problem
    if made.ended:
        gone = look(made.ended[0])
        facts["ended"] = dict(gone.facts) if gone else {"id": None, "digest": None}
        facts["ended"]["reason"] = made.ended[1]
        facts["ended"]["generation"] = pointer.generation
    now = made.pointer or pointer
    if now is not None and now.confirmed and look(now.confirmed):
        facts["confirmed"] = look(now.confirmed).facts
    slot = look(made.slot) if made.slot else None
    if slot is not None and use(slot, machine, facts):
        facts["slot"], facts["release"] = made.slot, slot.facts
    else:
        facts["trial"] = False


def _read_copy(region):
    record = bytearray(POINTER_BYTES)
    try:
        region.readinto(0, memoryview(record))
    except StorageError:
        return None
    return decode_pointer(record)


def _write(files, which, before, pointer, block):
    pointer = pointer.but(counter=before.counter + 1 if before else 1)
    for i in range(len(block)):
        block[i] = 0
    block[:POINTER_BYTES] = encode_pointer(pointer)
    region = files.boot_0 if which != 0 else files.boot_1
    region.write(0, block)
    region.sync()


def _look(number, region, buffer):
    """The slot when header, manifest and content are in order, else None."""
    try:
        head = bytearray(_HEAD_BYTES)
        region.readinto(0, memoryview(head))
        magic, length, crc, _zero = struct.unpack("<4sIII", head)
        if magic != b"FSL1" or not _SIGNED_HEAD < length <= _MANIFEST_BYTES:
            return None
        blob = bytearray(length)
        if region.readinto(_HEAD_BYTES, memoryview(blob)) != length or crc32(blob) != crc:
            return None
        found = _Found(
            number,
            region,
            json.loads(str(memoryview(blob)[_SIGNED_HEAD:], "utf-8")),
            hexed(sha256(blob).digest()),
        )
        digest = sha256()
        at = 0
        while at < found.size:
            piece = buffer[: min(BLOCK, found.size - at)]
            if region.readinto(CONTENT_OFFSET + at, piece) != len(piece):
                return None
            digest.update(piece)
            at += len(piece)
    except (StorageError, ValueError, KeyError, TypeError):
        return None
    return found if hexed(digest.digest()) == found.facts["digest"] else None


def _use(slot, machine, facts):
    """Mount the slot and make it the first place to import from. False: the files on the drive have to do."""
    try:
        mount_slot(slot.region, slot.size)
    except Exception as error:
        _show(error)
        facts["problem"] = "agent-not-mounted"
        return False
    if not _is_debug(board.storage()):
        facts["watchdog"] = board.open_watchdog(machine, _WATCHDOG_MS)
    sys.path.insert(0, MOUNT)
    for name in list(sys.modules):
        if name == _PACKAGE or name.startswith(_PACKAGE + "."):
            del sys.modules[name]
    return True


def can_mount():
    """Whether this firmware can run an agent from a slot."""
    return _mounter() is not None


def _mounter():
    vfs = firmware("vfs")
    return vfs if hasattr(vfs, "mount") else None


def mount_slot(region, size):
    """Make the image in this slot appear at MOUNT."""
    vfs = _mounter()
    view = getattr(region, "view", None)
    if view is not None:
        vfs.mount(vfs.VfsRom(view(CONTENT_OFFSET, size)), MOUNT)
    else:
        from camera_agent.slotfs import SlotFs

        vfs.mount(SlotFs(region, size), MOUNT)


def _is_debug(storage):
    """Whether the settings say that a developer works on this camera."""
    for path in (storage, "/flash"):
        try:
            with open(path + "/fleet/config.json") as file:
                return json.loads(file.read(_CONFIG_BYTES)).get("debug") is True
        except (OSError, ValueError, AttributeError):
            pass  # the next place, or the agent will say what is wrong with it
    return False


def _show(error):
    if hasattr(sys, "print_exception"):
        sys.print_exception(error)
