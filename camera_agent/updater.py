"""Carries out updates: from a desired release to a confirmed (or reverted) one, in small cooperative steps.

    updater = Updater(hal, files, keys, link, report)   # files: regions.open_files(...), keys: crypto.keyring(...)
    updater.boot()                                      # once, before the first frame; see BLOCKING

THE AGENT CORE CALLS
    updater.step() -> bool           often. True: there is more to do at once. Never raises for a bad medium, a bad
                                     manifest, a bad transfer or a full heap: those are reported.
    updater.on_desired(message)      what protocol.parse_desired() answered; an older generation is ignored.
    updater.on_release(release_id, payload), updater.on_block(digest_hex, n, payload)
                                     payload: memoryview, only read during the call. Anything not asked for is ignored.
    updater.status() -> dict         for `up/status`: release, trial, generation, slot_bytes, problems (list of words)

THE VISION LOOP CALLS
    choice = updater.model_to_use()  None: no model is to be used. Otherwise a Choice (below): .content and .files are
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

RAM BUDGET: two 4 KB buffers for good; during an update what camera_agent/install.py says.
"""

from camera_agent.install import Install, Job, RejectedError
from camera_agent.manifest import ManifestError, collect
from camera_agent.pointer import FALLBACK, decide
from camera_agent.regions import BLOCK, StorageError
from camera_agent.slots import Slots
from camera_agent.transfer import TransferError
from camera_agent.unpack import UnpackError

FRAMES = 5  # live frames that a trial has to classify
SLOW_MS = 5000  # a trial is too slow when even its fastest frame took longer
TRIAL_MS = 300_000  # for these frames
RETRY_MS = 60_000  # after connection-lost, doubling to
RETRY_MAX_MS = 3_600_000
_DETAIL_CHARS = 200


class Choice:
    """The model to use: `content` and `files` for hal.load_model, and what it is."""

    def __init__(self, slot, trial):
        manifest = slot.manifest
        self.trial = trial
        self.release = slot.release
        self.digest = slot.digest
        self.epoch = slot.epoch
        self.sequence = slot.sequence
        self.slot = slot.name
        self.name = manifest["name"]
        self.version = manifest["version"]
        self.threshold = manifest["threshold"] or 0.0
        self.model = manifest["model"]  # input, output, labels, arena_bytes; or None
        self.files = manifest["content"]["files"]
        self.content = slot.content


class Updater:
    """See the module's description for who calls what."""

    def __init__(self, hal, files, keys, port, report, frames=FRAMES, slow_ms=SLOW_MS):
        self._hal = hal
        self._stage = files.stage
        self._keys = keys
        self._port = port
        self._report = report
        self._frames_needed = frames
        self._slow_ms = slow_ms
        # one for reading back, hashing, headers and pointers; one for a transfer's index, then for unpacking
        self._buffers = (bytearray(BLOCK), bytearray(BLOCK))
        self._slots = Slots(files, keys, self._buffers[0])
        self._problems = [files.problem] if files.problem else []
        self._confirmed = None  # Slot, as far as it is in order
        self._looked = {}  # slots by number, checked for the decision at hand
        self._choice = None
        self._trial_slot = None
        self._trial_started_ms = 0
        self._frames = 0
        self._fastest_ms = None
        self._job = None  # what an update is about, until its trial is over
        self._install = None  # how it gets into the spare slot
        self._desired = None  # (generation, release, digest, deadline)
        self._consider = False  # whether that has to be looked at
        self._retry_ms = None  # when it is tried again
        self._backoff_ms = RETRY_MS

    # --- the agent core's side ----------------------------------------------------------------------------

    def boot(self):
        """Find out what to run. Reports a trial that is over."""
        pointer = self._slots.read_pointer()
        crash = "trial-hung" if self._hal.reset_cause() == "watchdog" else "trial-crashed"
        decision = self._choose(crash)
        if decision.ended:
            number, state, reason = decision.ended
            slot = self._looked.get(number)
            if slot:
                self._tell_of(slot.release, pointer.generation, state, reason, digest=slot.digest)
            else:
                self._problem("trial-lost")  # too damaged to say which release it was
        if self._on_trial():
            # what it replaces is reported as running until the trial is over; its content is not needed for that
            confirmed = self._slots.pointer.confirmed
            self._confirmed = self._slots.read_slot(confirmed) if confirmed else None
        self._looked = {}

    def step(self):
        """Do the next piece of work. True while there is more to do at once."""
        try:
            return self._work()
        except (TransferError, StorageError, UnpackError, ManifestError) as error:
            state, reason, detail = "failed", error.reason, error.detail
        except RejectedError as error:
            state, reason, detail = "rejected", error.reason, error.detail
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
        self._backoff_ms = RETRY_MS

    def on_release(self, release_id, payload):
        """The signed manifest of a release."""
        if self._install:
            self._install.on_release(release_id, payload)

    def on_block(self, digest_hex, number, payload):
        """A block of an encoding or of its index."""
        if self._install:
            self._install.on_block(digest_hex, number, payload)

    def status(self):
        """The updater's part of `up/status`."""
        slot = self._confirmed
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
            "trial": self._choice.release if self._on_trial() else None,
            "generation": self._desired[0] if self._desired else 0,
            "slot_bytes": self._slots.capacity,
            "problems": list(self._problems),
        }

    # --- the vision loop's side ---------------------------------------------------------------------------

    def model_to_use(self):
        """The Choice to run, or None."""
        return self._choice

    def trial_frame_ok(self, inference_ms):
        """A live frame was classified."""
        if not self._on_trial():
            return
        self._frames += 1
        if self._fastest_ms is None or inference_ms < self._fastest_ms:
            self._fastest_ms = inference_ms
        if self._frames >= self._frames_needed and self._fastest_ms > self._slow_ms:
            detail = "the fastest of %d frames took %d ms" % (self._frames, self._fastest_ms)
            self.trial_failed("inference-too-slow", detail)

    def trial_failed(self, reason, detail=None):
        """Back to the confirmed model, at once. The release is remembered. False when there is no trial."""
        if not self._on_trial():
            return False
        # a medium that fails says nothing about the release
        self._end_trial(reason, detail, None if reason == "storage-error" else self._trial_slot)
        return True

    def _on_trial(self):
        return self._choice is not None and self._choice.trial

    # --- what to run --------------------------------------------------------------------------------------

    def _choose(self, crash_reason):
        """Decide, write what has to be written first, and set the choice."""
        self._looked = {}
        decision = decide(self._slots.pointer, self._look, crash_reason)
        use, trial = decision.use, decision.trial
        try:
            if decision.pointer:
                self._slots.write_pointer(decision.pointer)
        except StorageError:
            self._problem("storage-error")
            if trial:  # its attempt could not be counted, so it must not run
                confirmed = self._slots.pointer.confirmed if self._slots.pointer else 0
                use, trial = (confirmed if confirmed and self._look(confirmed) else 0), False
        else:
            self._wipe(decision.wipe)
        if decision.problem:
            self._problem(decision.problem)
        slot = self._look(use) if use else None
        if slot and trial:
            now = self._hal.ticks_ms()
            pointer = self._slots.pointer
            generation = pointer.generation or (self._desired[0] if self._desired else 0)
            self._job = Job(slot.release, slot.manifest_digest, generation, now)
            self._start(slot, now)
        else:
            self._choice = Choice(slot, False) if slot else None
            self._trial_slot = None
            self._confirmed = slot
        return decision

    def _look(self, number):
        """The slot if it is entirely in order; each is checked once per decision."""
        if number not in self._looked:
            try:
                self._looked[number] = self._slots.check_slot(number, self._hal.feed)
            except MemoryError:
                collect()
                self._problem("out-of-memory")
                self._looked[number] = None
        return self._looked[number]

    def _start(self, slot, now):
        """Hand out the slot on trial; its attempt has been counted."""
        self._trial_slot = slot
        self._trial_started_ms = now
        self._frames = 0
        self._fastest_ms = None
        self._choice = Choice(slot, True)
        detail = "it stands in for a damaged slot" if self._stands_in() else None
        self._tell("trial", "storage-error" if detail else None, detail, digest=slot.digest)

    def _stands_in(self):
        """Whether the trial runs because nothing else is in order: there is nothing to go back to."""
        return bool(self._slots.pointer.flags & FALLBACK)

    def _wipe(self, number):
        try:
            if number:
                self._slots.wipe(number)
        except StorageError:
            self._problem("storage-error")  # the pointer does not name the slot, so nothing depends on this

    def _problem(self, word):
        if word not in self._problems:
            self._problems.append(word)

    # --- what to do ---------------------------------------------------------------------------------------

    def _work(self):
        now = self._hal.ticks_ms()
        if self._consider:
            self._consider_desired(now)
            if self._consider and not self._on_trial():
                return True
        if self._on_trial():
            return self._watch_trial(now)
        if self._install:
            return self._carry_on(now)
        if self._retry_ms is not None and now >= self._retry_ms and self._port.connected:
            self._retry_ms = None
            self._consider = True
            return True
        return False

    def _consider_desired(self, now):
        """Compare what is desired with what goes on. Leaves `_consider` set while it cannot be acted on."""
        generation, release, digest = self._desired[:3]
        job = self._job
        if job and release == job.release and (digest is None or digest == job.digest or not job.digest):
            job.generation = generation
            job.digest = digest or job.digest
            self._consider = False
        elif self._on_trial():
            if (release is None or self._is_confirmed(release, digest)) and not self._stands_in():
                self._end_trial("operator-cancelled", None, None)
        elif job:
            self._end("failed", "operator-cancelled", None)
        else:
            self._consider = False
            if release is not None:
                self._begin(now)

    def _is_confirmed(self, release, digest):
        slot = self._confirmed
        return slot is not None and slot.release == release and digest in (None, slot.manifest_digest)

    def _begin(self, now):
        """Start what is desired, or say why not."""
        generation, release, digest, deadline = self._desired
        if self._is_confirmed(release, digest):
            self._tell_of(release, generation, "confirmed", digest=self._confirmed.digest)
            return
        why = self._slots.failed_before(release)
        if why:
            self._tell_of(release, generation, "rejected", why, "it was reverted here before")
            return
        unix = self._hal.unix()
        if deadline is not None and unix is not None and unix > deadline:
            self._tell_of(release, generation, "rejected", "window-closed", "the deadline has passed")
            return
        if not self._slots.capacity or self._stage is None:
            reason = self._problems[0] if "not-enough-storage" in self._problems[:1] else "storage-error"
            self._tell_of(release, generation, "rejected", reason, "there are no slots for an update")
            return
        self._job = Job(release, digest, generation, now)
        self._install = Install(
            self._job,
            self._hal,
            self._keys,
            self._port,
            self._slots,
            self._stage,
            self._confirmed,
            self._tell,
            self._buffers,
        )

    def _carry_on(self, now):
        """The next piece of the running update; when the slot is written, its trial begins."""
        if not self._install.ready:
            return self._install.step()
        self._install = None
        slot = self._slots.read_slot(self._slots.spare)  # exactly as the next boot will see it
        if slot is None:
            raise StorageError("storage-error", "the slot does not read back")
        try:
            self._slots.set_trial(self._job.generation)
            self._slots.count_attempt()
        except StorageError:
            self._slots.cancel_trial()
            self._wipe(slot.number)  # whichever pointer the next boot finds: it has been called failed
            raise
        self._start(slot, now)
        return True

    def _went_wrong(self, state, reason, detail):
        if self._on_trial():
            self.trial_failed(reason, detail)
        elif self._job:
            self._end(state, reason, detail)
        if reason == "connection-lost":
            self._retry_ms = self._hal.ticks_ms() + self._backoff_ms
            self._backoff_ms = min(2 * self._backoff_ms, RETRY_MAX_MS)

    def _end(self, state, reason, detail):
        """The update is over before its trial."""
        if self._install:
            self._install.close()
            self._install = None
        self._tell(state, reason, detail)
        self._job = None

    # --- the trial ----------------------------------------------------------------------------------------

    def _watch_trial(self, now):
        if self._frames >= self._frames_needed:
            self._confirm(now)
            return True
        if now - self._trial_started_ms >= TRIAL_MS:
            detail = "%d of %d frames in %d s" % (self._frames, self._frames_needed, TRIAL_MS // 1000)
            self.trial_failed("trial-hung", detail)
            return True
        return False

    def _confirm(self, now):
        slot = self._trial_slot
        self._slots.confirm(slot)
        self._confirmed = slot
        self._choice.trial = False
        self._trial_slot = None
        job = self._job
        job.lap("trial", now)
        job.ms["total"] = now - job.started_ms
        self._tell("confirmed", digest=slot.digest)
        self._job = None

    def _end_trial(self, reason, detail, failed_slot):
        """Flip back, say so, and choose what to run now. `failed_slot` is remembered as failed."""
        number = self._trial_slot.number
        try:
            self._slots.revert(failed_slot, reason)
        except StorageError:
            self._problem("storage-error")  # the attempts on storage end it after the next boots
        else:
            self._wipe(number)
        self._tell("reverted", reason, detail, digest=self._trial_slot.digest)
        self._job = None
        self._choice = None
        self._trial_slot = None
        self._choose("trial-crashed")
        self._looked = {}

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
