"""Carries out updates: from a desired release to a confirmed (or reverted) one, in small cooperative steps.

    updater = Updater(hal, files, ring, link, report)   # files: regions.open_files(...), ring: crypto.Ring
    updater.boot()                                      # once, before the first frame; see BLOCKING

THE AGENT CORE CALLS
    updater.step() -> bool           often. True: there is more to do at once. Never raises for a bad medium, a bad
                                     manifest, a bad transfer or a full heap: those are reported.
    updater.on_desired(message)      what protocol.parse_desired() answered; an older generation is ignored.
    updater.on_keys(serial)          fleetd has key records up to this one (camera_agent/keyring.py); they are fetched
                                     and taken over one by one, and what is desired is looked at again.
    updater.on_release(release_id, payload), updater.on_block(digest_hex, n, payload)
                                     payload: memoryview, only read during the call (of a release also a bytearray,
                                     which is kept, or None: no memory for it). Anything not asked for is ignored.
    updater.status() -> dict         for `up/status`: release, trial, generation, keys, slot_bytes, problems (words)

THE VISION LOOP CALLS
    choice = updater.model_to_use()  None: no model is to be used. Otherwise a running.Choice: .content and .files are
                                     what hal.load_model wants. Compare by identity: when it `is not` the one in use,
                                     free the old model, collect, load the new one. It was hashed and its signature
                                     checked, and for a trial the attempt stands on storage: the core counts nothing.
    updater.trial_frame_ok(inference_ms)    after each live frame that was classified; only counts while on trial.
                                     After `frames` of them the next step() confirms; the choice stays the same object.
    updater.trial_failed(reason, detail) -> bool    the trial's model could not be loaded, its labels do not match, it
                                     raised ... (reason: a word of messages.UpdateReason). Free that model first. The
                                     pointer flips back at once, model_to_use() answers the old one. False: no trial.
    A confirmed choice that cannot be loaded is the core's affair (report an event; a reset gives a fresh heap).

THE PORT is the link itself, or anything with
    port.connected                   whether a subscription can be made now (silence counts only while it is True)
    port.want(topic), port.unwant(topic)    exact topics, QoS 0; wanting one again asks the broker to repeat it
    port.topics.release(id), port.topics.blob(digest_hex, n)
REPORTS
    report(state, reason=None, detail=None, **extra)    state: messages.UpdateState; extra: generation, release and, as
                                     far as known, digest, blocks, bytes, ms: the fields of `up/update`.

WHAT ENDS HOW
    rejected   by the manifest, the deadline, storage that does not suffice, or because this release was reverted here
               before (the reason is the one it was reverted with, also after a reboot). Looked at again only when a
               higher generation is desired; a reverted release stays rejected until another one has gone on trial.
    failed     unknown-release, and digest-mismatch when the manifest is not the desired one, are told once while it
               goes on asking (after 60 s doubling to 1 h of connected time). connection-lost (15 minutes connected
               without a good block) is tried again after 60 s doubling to 1 h. The rest: when a higher generation is
               desired. operator-cancelled: no release, the confirmed one or another one is desired meanwhile.
    reverted   from a trial: it failed, hung (no `frames` within 5 minutes), crashed twice, or was cancelled.
    Updates wait while a trial runs. A patch that does not unpack is followed by the full encoding.

BLOCKING (what step() cannot split): one signature check, 0.2-0.25 s at 600 MHz, when a manifest has come and when its
slot has been written; at most three blocks of 4 KB written in a row. boot(), and trial_failed() for the old model,
hash the whole content that is to be used (0.25 s a megabyte and its reading) and feed the watchdog meanwhile.
Everything else is at most 4 KB of hashing, inflating, reading and writing a step.

RAM BUDGET: a 4 KB buffer for good; during an update what camera_agent/install.py says.
"""

from camera_agent.errors import AgentError, StorageError
from camera_agent.follow import Follow
from camera_agent.heap import collect, const, give_room, keep_room
from camera_agent.install import Install, Job, RejectedError
from camera_agent.regions import BLOCK
from camera_agent.running import Running
from camera_agent.slots import Slots

_FRAMES = const(5)  # live frames that a trial has to classify
SLOW_MS = const(5000)  # a trial is too slow when even its fastest frame took longer
_TRIAL_MS = const(300_000)  # for these frames
_RETRY_MS = const(60_000)  # after connection-lost, doubling to
_RETRY_MAX_MS = const(3_600_000)
_TIDY_MS = const(500)  # between two tries to get back the room for the next update
_DETAIL_CHARS = const(200)
_NO_ROOM = ("not-enough-storage", "flash-one-sector")


class Updater:
    """See the module's description for who calls what."""

    def __init__(self, hal, files, ring, port, report, frames=_FRAMES, slow_ms=SLOW_MS):
        self._hal = hal
        self._stage = files.stage
        self._ring = ring
        self._port = port
        self._report = report
        self._frames_needed = frames
        self._slow_ms = slow_ms
        # for reading back, hashing, headers, pointers, a transfer's index, unpacking: one after the other
        self.buffer = self._buffer = bytearray(BLOCK)
        keep_room()
        self._slots = Slots(files, ring.known, self._buffer)
        self.agents = None  # agents.Agents, where there are slots for the agent itself
        self._running = Running(hal, self._slots, [files.problem] if files.problem else [])
        self._job = None  # what an update is about, until its trial is over
        self._install = None  # how it gets into the spare slot
        self._desired = None  # (generation, release, digest, deadline)
        self._consider = False  # whether that has to be looked at
        self._retry_ms = None  # when it is tried again
        self._backoff_ms = _RETRY_MS
        self._tidy_ms = 0
        self._keys = Follow(ring, self._slots, port)

    # --- the agent core's side ----------------------------------------------------------------------------

    def boot(self):
        """Find out what to run. Reports a trial that is over."""
        hung = self._hal.reset_cause() == "watchdog"
        pointer = self._slots.read_pointer()
        self._keys.boot()
        ended = self._running.boot("trial-hung" if hung else "trial-crashed")
        self._take_over_trial()
        if ended:
            slot, state, reason = ended
            if slot:
                self._tell_of(slot.release, pointer.generation, state, reason, digest=slot.digest)
            else:
                self._running.problem("trial-lost")  # too damaged to say which release it was

    def step(self):
        """Do the next piece of work. True while there is more to do at once."""
        try:
            return self._work()
        except AgentError as error:
            state = "rejected" if isinstance(error, RejectedError) else "failed"
            reason, detail = error.reason, error.detail
        except MemoryError:
            state, reason, detail = "failed", "out-of-memory", None
        collect()
        self._went_wrong(state, reason, detail)
        return True

    def on_desired(self, message):
        """What the camera should be running."""
        wanted = (message["generation"], message["release"], message["digest"], message["deadline"])
        if self._desired and wanted[0] < self._desired[0]:
            return
        if wanted == self._desired:
            return  # it comes again at every reconnect; what is to be tried again does not need that
        self._desired = wanted
        self._consider = True
        self._retry_ms = None
        self._backoff_ms = _RETRY_MS

    def on_keys(self, serial):
        """fleetd has key records up to this one."""
        self._keys.newest = max(self._keys.newest, serial)  # whoever says less wants to hold one back

    def on_release(self, release_id, payload):
        """The signed manifest of a release, or a key record."""
        if not self._keys.on_release(release_id, payload) and self._install:
            self._install.on_release(release_id, payload)

    def on_block(self, digest_hex, number, payload):
        """A block of an encoding or of its index."""
        if self._install:
            self._install.on_block(digest_hex, number, payload)

    def status(self):
        """The updater's part of `up/status`."""
        slot = self._running.confirmed
        running = None
        if slot:
            running = {
                "id": slot.release,
                "digest": slot.digest,
                "sequence": slot.sequence,
                "epoch": slot.epoch,
                "slot": slot.name,
            }
        return {
            "release": running,
            "trial": self._running.choice.release if self._running.on_trial else None,
            "generation": self._desired[0] if self._desired else 0,
            "keys": {"serial": self._ring.serial, "epoch": self._ring.epoch},
            "slot_bytes": self._slots.capacity,
            "problems": self._running.problems + ([self._keys.refused] if self._keys.refused else []),
        }

    # --- the vision loop's side ---------------------------------------------------------------------------

    def model_to_use(self):
        """The Choice to run, or None."""
        return self._running.choice

    def trial_frame_ok(self, inference_ms):
        """A live frame was classified."""
        running = self._running
        if not running.on_trial:
            return
        running.frame_ok(inference_ms)
        if running.frames >= self._frames_needed and running.fastest_ms > self._slow_ms:
            detail = "the fastest of %d frames took %d ms" % (running.frames, running.fastest_ms)
            self.trial_failed("inference-too-slow", detail)

    def trial_failed(self, reason, detail=None):
        """Back to the confirmed model, at once. The release is remembered. False when there is no trial."""
        if not self._running.on_trial:
            return False
        # a medium that fails says nothing about the release
        self._end_trial(reason, detail, None if reason == "storage-error" else self._running.slot)
        return True

    def pause(self):
        """Somebody stops this start of a trial, which therefore does not count. Raises StorageError."""
        pointer = self._slots.pointer
        if self._running.on_trial and pointer.attempts:
            self._slots.write_pointer(pointer.but(attempts=pointer.attempts - 1))

    # --- what to do ---------------------------------------------------------------------------------------

    def _work(self):
        now = self._hal.ticks_ms()
        if self._keys.step(now):
            self._begin_anew()
            return True
        if self._consider:
            self._consider_desired(now)
            if self._consider and not self._is_trying():
                return True
        if not self._install and now >= self._tidy_ms:
            self._tidy_ms = now + _TIDY_MS
            keep_room()
        if self._running.on_trial:
            return self._watch_trial(now)
        if self._install:
            return not self._keys.holds(now) and self._carry_on(now)
        if self._retry_ms is not None and now >= self._retry_ms and self._port.connected:
            self._retry_ms = None
            self._consider = True
            return True
        return False

    def _begin_anew(self):
        """The keys have changed: what is desired, and an update under way, are judged again."""
        if self._install:  # the blocks that are there stay
            self._install.close()
            self._install = self._job = None
        self._consider = self._desired is not None
        running = self._running
        if running.on_trial and not running.stands_in():
            if self._slots.signers()[running.slot.number - 1] not in self._ring.trusted:
                self._end_trial("unknown-key", "its key does not count any more", None)

    def _is_trying(self):
        return self._running.on_trial or (self.agents is not None and self.agents.is_busy)

    def _consider_desired(self, now):
        """Compare what is desired with what goes on. Leaves `_consider` set while it cannot be acted on."""
        generation, release, digest = self._desired[:3]
        job = self._job
        if job and release == job.release and (digest is None or digest == job.digest or not job.digest):
            job.generation = generation
            job.digest = digest or job.digest
            self._consider = False
        elif self.agents and self.agents.is_busy:
            pass
        elif self._running.on_trial:
            if (release is None or self._is_confirmed(release, digest)) and not self._running.stands_in():
                self._end_trial("operator-cancelled", None, None)
        elif job:
            self._end("failed", "operator-cancelled", None)
        else:
            self._consider = False
            if release is not None:
                self._begin(now)

    def _is_confirmed(self, release, digest):
        slot = self._running.confirmed
        return slot is not None and slot.release == release and digest in (None, slot.manifest_digest)

    def _begin(self, now):
        """Start what is desired, or say why not."""
        generation, release, digest, deadline = self._desired
        if self._is_confirmed(release, digest):
            self._tell_of(release, generation, "confirmed", digest=self._running.confirmed.digest)
            return
        if self.agents and self.agents.is_confirmed(release, digest):
            self._tell_of(release, generation, "confirmed", digest=self.agents.confirmed["digest"])
            return
        why = self._slots.failed_before(release) or (self.agents and self.agents.failed_before(release))
        if why:
            self._tell_of(release, generation, "rejected", why, "it was reverted here before")
            return
        unix = self._hal.unix()
        if deadline is not None and unix is not None and unix > deadline:
            self._tell_of(release, generation, "rejected", "window-closed", "the deadline has passed")
            return
        if not self._slots.capacity or self._stage is None:
            found = self._running.problems[:1]
            reason = "not-enough-storage" if found and found[0] in _NO_ROOM else "storage-error"
            self._tell_of(release, generation, "rejected", reason, "there are no slots for an update")
            return
        self._job = Job(release, digest, generation, now)
        self._install = Install(
            self._job,
            self._hal,
            self._ring,
            self._port,
            self._slots,
            self._stage,
            self._running.confirmed,
            self._tell,
            self._buffer,
            self.agents if self.agents and self.agents.can_change else None,
        )

    def _carry_on(self, now):
        """The next piece of the running update; when the slot is written, its trial begins."""
        if not self._install.ready:
            return self._install.step()
        kind, self._install = self._install.kind, None
        give_room()
        if kind == "agent":
            self._tell("trial", digest=self.agents.try_next(self._job.generation).digest)
            self._job = None
            return True
        slot = self._slots.read_slot(self._slots.spare)  # exactly as the next boot will see it
        keep_room()
        if slot is None:
            raise StorageError("storage-error", "the slot does not read back")
        try:
            self._slots.set_trial(self._job.generation)
            self._slots.count_attempt()
        except StorageError:
            self._slots.cancel_trial()
            self._running.wipe(
                slot.number
            )  # whichever pointer the next boot finds: it has been called failed
            raise
        self._running.start(slot, now)
        self._tell_trial()
        return True

    def _went_wrong(self, state, reason, detail):
        if self._running.on_trial:
            self.trial_failed(reason, detail)
        elif self._job:
            self._end(state, reason, detail)
        if reason == "connection-lost":
            self._retry_ms = self._hal.ticks_ms() + self._backoff_ms
            self._backoff_ms = min(2 * self._backoff_ms, _RETRY_MAX_MS)

    def _end(self, state, reason, detail):
        """The update is over before its trial."""
        if self._install:
            self._install.close()
            self._install = None
        self._tell(state, reason, detail)
        self._job = None

    # --- the trial ----------------------------------------------------------------------------------------

    def _take_over_trial(self):
        """Make a job of the trial that the last decision began, if it did."""
        slot = self._running.slot
        if slot:
            generation = self._slots.pointer.generation or (self._desired[0] if self._desired else 0)
            self._job = Job(slot.release, slot.manifest_digest, generation, self._running.since_ms)
            self._tell_trial()

    def _tell_trial(self):
        detail = "it stands in for a damaged slot" if self._running.stands_in() else None
        self._tell("trial", "storage-error" if detail else None, detail, digest=self._running.slot.digest)

    def _watch_trial(self, now):
        running = self._running
        if running.frames >= self._frames_needed:
            self._confirm(now)
            return True
        if now - running.since_ms >= _TRIAL_MS:
            detail = "%d of %d frames in %d s" % (running.frames, self._frames_needed, _TRIAL_MS // 1000)
            self.trial_failed("trial-hung", detail)
            return True
        return False

    def _confirm(self, now):
        slot = self._running.confirm()
        job = self._job
        job.lap("trial", now)
        job.ms["total"] = now - job.started_ms
        self._tell("confirmed", digest=slot.digest)
        self._job = None

    def _end_trial(self, reason, detail, failed_slot):
        """Flip back, say so, and choose what to run now. `failed_slot` is remembered as failed."""
        slot = self._running.flip_back(failed_slot, reason)
        self._tell("reverted", reason, detail, digest=slot.digest)
        self._job = None
        self._running.choose("trial-crashed")
        self._take_over_trial()

    # --- reports ------------------------------------------------------------------------------------------

    def _tell(self, state, reason=None, detail=None, **extra):
        """Report about the running job."""
        job = self._job
        extra.update(job.facts())
        self._tell_of(job.release, job.generation, state, reason, detail, **extra)

    def _tell_of(self, release, generation, state, reason=None, detail=None, **extra):
        if detail is not None:
            detail = detail[:_DETAIL_CHARS]
        self._report(state, reason, detail, generation=generation, release=release, **extra)
