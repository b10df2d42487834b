"""Gets a release into the spare slot: manifest, transfer, unpacking, hashing, header. One object per update.

Nothing here touches the pointer, so whatever happens the model that runs stays the one that counts.

What a step cannot split: the signature check of the manifest, and at most three blocks of 4 KB written in a row.

RAM BUDGET: the caller's 4 KB buffer, the signed manifest (at most 8 KB), its parsed form (twice as much until an
encoding is chosen, then mostly dropped), 5.5 KB for inflating. The code for manifest, transfer and unpacking (3 to 4 KB
each) is loaded when its turn comes and, where memory is scarce, forgotten afterwards.
"""

from camera_agent import crypto, protocol
from camera_agent.errors import AgentError, ManifestError, TransferError, UnpackError
from camera_agent.heap import collect, const, forget, give_room, keep_room, load
from camera_agent.slots import ContentCheck

_MANIFEST_MS = const(60_000)  # of connected time without the manifest, doubling to
_MANIFEST_MAX_MS = const(3_600_000)
_PROGRESS_MS = const(5000)  # between two reports of a transfer


class RejectedError(AgentError):
    """This camera must not install the release. `reason` is a word of `up/update`."""


class Job:
    """What an update is about and what it has cost so far; the reports are made of it."""

    def __init__(self, release, digest, generation, now_ms):
        self.release = release
        self.digest = digest  # of the signed manifest, or None when fleetd did not say
        self.generation = generation
        self.started_ms = now_ms
        self.ms = {}
        self.blocks = None  # of the transfer: done and total
        self.bytes = 0
        self._lap_ms = now_ms

    def lap(self, name, now_ms):
        """Note how long the part of the work that ends now took."""
        self.ms[name] = self.ms.get(name, 0) + now_ms - self._lap_ms
        self._lap_ms = now_ms

    def facts(self):
        """blocks, bytes and ms as far as they are known."""
        known = {}
        if self.blocks:
            known["blocks"] = {"done": self.blocks[0], "total": self.blocks[1]}
            known["bytes"] = self.bytes
        if self.ms:
            known["ms"] = dict(self.ms)
        return known


class Install:
    """Call step() until `ready`. It raises RejectedError, ManifestError, TransferError, UnpackError, StorageError or
    MemoryError when the update is over; close() then (and whenever it is given up)."""

    def __init__(self, job, hal, ring, port, slots, stage, base, tell, buffer, agents=None):
        """`ring`: crypto.Ring; `base`: the confirmed Slot or None; `agents`: agents.Agents where it can be updated;
        `tell(state, reason, detail)`: reports about this job; `buffer`: 4 KB, the same that `slots` has. It holds the
        index during the transfer and a block of output while unpacking; in between `slots` uses it, never meanwhile."""
        self.ready = False
        self.kind = "model"
        self._agents = agents
        self._job = job
        self._hal = hal
        self._ring = ring
        self._port = port
        self._slots = slots
        self._stage = stage
        self._base = base
        self._tell = tell
        self._buffer = buffer
        self._next = self._await_manifest
        self._waiting = True
        self._waited_ms = 0
        self._ask_after_ms = _MANIFEST_MS
        self._told = None  # why it waits, as far as that was reported
        self._last_ms = self._reported_ms = job.started_ms
        self._reported_done = 0
        self._blob = None
        self._has_no_room = False  # for the manifest
        self._content = None  # (size, digest) of what it is to become
        self._encoding = None
        self._transfer = None
        self._unpacker = None
        self._check = None
        port.want(port.topics.release(job.release))

    def step(self):
        """Do the next piece of work. True while there is more to do at once."""
        now = self._hal.ticks_ms()
        try:
            return self._next(now)
        except (TransferError, UnpackError) as error:
            if self._base is None or self._encoding["kind"] != "patch" or error.reason != "digest-mismatch":
                raise
            self._without_patch(error.detail)
            return True

    def on_release(self, release_id, payload):
        """The signed manifest, or None: it came, but there was no memory for it. A later step checks it."""
        job = self._job
        if not self._waiting or release_id != job.release:
            return
        if payload is None:
            self._has_no_room = True
        elif len(payload) > protocol.MANIFEST_BYTES:
            self._blob = b""  # whatever it was: nobody whose key we hold made it
        elif job.digest and crypto.digest_of(payload) != job.digest:
            self._tell_once("digest-mismatch", "the manifest is not the desired one")
        elif type(payload) is bytearray:
            self._blob = payload
        else:
            try:
                self._blob = bytearray(payload)
            except MemoryError:  # not for the link to handle
                self._has_no_room = True

    def on_block(self, digest_hex, number, payload):
        """A block of an encoding or of its index."""
        if self._transfer:
            self._transfer.on_block(digest_hex, number, payload)
            self._count()

    def close(self):
        """Stop listening. The blocks that came stay in the stage for the next time."""
        if self._waiting:
            self._stop_waiting()
        self._end_transfer()
        self._end_unpacking()

    # --- the pieces, in their order: each takes the time and answers whether there is more to do at once --------

    def _await_manifest(self, now):
        if self._has_no_room:
            raise MemoryError
        if self._blob is not None:
            self._stop_waiting()
            self._next = self._open
            return True
        if self._port.connected:
            self._waited_ms += now - self._last_ms
            if self._waited_ms >= self._ask_after_ms:
                self._tell_once("unknown-release", "no manifest came")
                self._waited_ms = 0
                self._ask_after_ms = min(2 * self._ask_after_ms, _MANIFEST_MAX_MS)
                self._port.want(self._port.topics.release(self._job.release))
        self._last_ms = now
        return False

    def _stop_waiting(self):
        self._waiting = False
        self._port.unwant(self._port.topics.release(self._job.release))

    def _tell_once(self, reason, detail):
        if self._told != reason:
            self._told = reason
            self._tell("failed", reason, detail)

    def _open(self, now):
        give_room()  # checking and parsing takes as much; what stays of it is small
        try:
            manifest = load("manifest").open_manifest(self._blob, self._ring.trusted)
        except ManifestError as error:
            if error.reason == "out-of-memory":
                raise
            raise RejectedError(error.reason, error.detail) from None
        finally:
            forget("manifest")
        try:
            self._decide(load("offers"), manifest)
        finally:
            forget("offers")
        manifest = None
        keep_room()
        self._transfer = load("transfer").Transfer(self._port, self._stage, self._encoding, self._buffer)
        self._count()
        self._job.lap("manifest", now)
        self._reported_ms = now
        self._tell("transferring")
        self._next = self._pull
        return True

    def _decide(self, offers, manifest):
        """Whether to install it, and how to get its content."""
        if manifest["release"] != self._job.release:
            raise RejectedError("manifest-invalid", "it is the manifest of another release")
        self._job.digest = crypto.digest_of(self._blob)
        kinds = ("model",)
        if self._agents is not None:
            kinds = ("model", "agent")
            if manifest["kind"] == "agent":
                self.kind = "agent"
                self._slots = self._agents.slots
                self._base = self._agents.base()
        pointer = self._slots.pointer
        floor = (pointer.epoch, pointer.sequence) if pointer else (0, 0)
        base = self._base.digest if self._base else None
        room = self._stage.size
        unix = self._hal.unix()
        reason = offers.accepts(
            manifest, self._hal.arch(), floor, unix, self._slots.capacity, room, base, self._ring.epoch, kinds
        )
        if reason:
            raise RejectedError(reason)
        self._encoding = offers.choose_encoding(manifest, room, base)
        self._content = (manifest["content"]["size"], manifest["content"]["sha256"])

    def _pull(self, now):
        transfer = self._transfer
        more = transfer.step(now)
        self._count()
        if transfer.finished:
            transfer = None
            self._end_transfer()
            self._job.lap("transfer", now)
            self._tell("verifying")
            self._next = self._prepare
            return True
        if transfer.done != self._reported_done and now - self._reported_ms >= _PROGRESS_MS:
            self._reported_ms = now
            self._reported_done = transfer.done
            self._tell("transferring")
        return more

    def _count(self):
        transfer = self._transfer
        self._job.blocks = (transfer.done, transfer.total)
        self._job.bytes = transfer.bytes

    def _end_transfer(self):
        if self._transfer:
            self._transfer.close()
            self._transfer = None
            forget("transfer")

    def _end_unpacking(self):
        if self._unpacker:
            self._unpacker = None
            forget("unpack")

    def _prepare(self, now):
        self._slots.wipe(self._slots.spare)
        collect()  # the inflater's window is the largest single piece of an update
        keep_room()
        self._unpacker = load("unpack").Unpacker(
            self._stage,
            self._encoding,
            self._content[0],
            self._slots.write_content,
            self._buffer,
            self._base.content if self._base else None,
        )
        self._next = self._unpack
        give_room()  # the inflater takes it with its first byte, at once
        return self._unpack(now)

    def _unpack(self, now):
        if self._unpacker.step():
            return True
        self._end_unpacking()
        self._slots.sync_content()
        size, digest = self._content
        self._check = ContentCheck(self._slots.spare_content(size), digest, self._buffer)
        self._job.lap("unpack", now)
        self._next = self._verify
        return True

    def _verify(self, now):
        keep_room()  # not earlier: until a function returns it may keep hold of what it has used
        if self._check.step():
            return True
        if not self._check.ok:
            raise UnpackError("the unpacked content is not what the manifest says")
        self._check = None
        self._slots.finish(self._blob)
        self._blob = self._encoding = None
        self._job.lap("verify", now)
        self.ready = True  # and the trial begins with the next step
        return True

    def _without_patch(self, detail):
        """The patch did not lead to the content: begin again with the full encoding."""
        self._end_transfer()
        self._end_unpacking()
        self._check = self._encoding = None
        self._base = None
        self._tell("transferring", None, "the patch does not fit, taking the full encoding: %s" % detail)
        self._next = self._open
