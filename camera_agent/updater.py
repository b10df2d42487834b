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
                                     raised ... (reason: a word of messages.UpdateReason). The pointer flips back at
                                     once and model_to_use() answers the old model. False: there was no trial.
    A confirmed choice that cannot be loaded is the core's affair (report an event; a reset gives a fresh heap).

THE PORT is the link itself, or anything with
    port.connected                          whether a subscription can be made now (silence counts only while it is True)
    port.want(topic), port.unwant(topic)    exact topics, QoS 0; wanting one again asks the broker to repeat it
    port.topics.release(id), port.topics.blob(digest_hex, n)
REPORTS
    report(state, reason=None, detail=None, **extra)    state: messages.UpdateState; extra: generation, release and, as far
                                     as known, digest, blocks, bytes, ms: the fields of `up/update`.

WHAT ENDS HOW
    rejected   by the manifest, the deadline, storage that does not suffice, or because this release was reverted here
               before (the reason is the one it was reverted with, also after a reboot). Looked at again only when a
               higher generation is desired; a reverted release stays rejected until another one has gone on trial.
    failed     connection-lost, unknown-release, and a manifest other than the desired one are told once and tried again
               by themselves, after 60 s doubling to 1 h (connected time); the rest when a higher generation is desired.
               operator-cancelled: no release, the confirmed one or another one is desired meanwhile.
    reverted   from a trial: it failed, hung (no `frames` within 5 minutes), crashed twice, or was cancelled.
    Updates wait while a trial runs. A patch that does not unpack is followed by the full encoding.

BLOCKING (what step() cannot split): one signature check, 0.2-0.25 s at 600 MHz, when a manifest has come and when its
slot has been written; at most three blocks of 4 KB written. boot(), and trial_failed() for the old model, hash the whole
content that is to be used (0.25 s a megabyte and its reading) and feed the watchdog meanwhile. Everything else is at
most 4 KB of hashing, inflating, reading and writing a step.

RAM BUDGET: two 4 KB buffers for good; during an update the signed manifest (at most 8 KB) with its parsed form (2-3
times as much at its peak, the encodings are dropped when one is chosen) and 5.5 KB for inflating.
"""

import gc

from camera_agent import protocol, slots
from camera_agent.manifest import ManifestError, accepts, choose_encoding, digest_of, open_manifest
from camera_agent.regions import BLOCK, StorageError
from camera_agent.transfer import Transfer, TransferError
from camera_agent.unpack import Unpacker, UnpackError

FRAMES = 5  # live frames that a trial has to classify
SLOW_MS = 5000  # a trial is too slow when even its fastest frame took longer
TRIAL_MS = 300_000  # for these frames
MANIFEST_MS = 60_000  # of connected time without the manifest
RETRY_MS = 60_000  # doubling to
RETRY_MAX_MS = 3_600_000
PROGRESS_MS = 5000  # between two reports of a transfer
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
        self.threshold = manifest.get("threshold", 0.0)
        self.model = manifest.get("model")
        self.files = manifest["content"]["files"]
        self.content = slot.content


class _Job:
    """One update on its way; it lives until its trial is over."""

    def __init__(self, release, digest, generation, now_ms):
        self.release = release
        self.digest = digest  # of the signed manifest, or None when fleetd did not say
        self.generation = generation
        self.stage = None  # the method that does the next piece of work
        self.waiting = False  # for the manifest
        self.blob = None
        self.manifest = None
        self.encoding = None
        self.full_only = False  # a patch has let us down
        self.transfer = None
        self.unpacker = None
        self.check = None
        self.waited_ms = 0  # connected, for the manifest
        self.ask_after_ms = MANIFEST_MS
        self.told = None  # the reason for waiting that was reported already
        self.last_ms = now_ms
        self.reported_ms = now_ms
        self.reported_done = 0
        self.started_ms = now_ms
        self.lap_ms = now_ms
        self.ms = {}

    def lap(self, name, now_ms):
        """Note how long the part of the work that ends now took."""
        self.ms[name] = self.ms.get(name, 0) + now_ms - self.lap_ms
        self.lap_ms = now_ms


class Updater:
    """See the module's description for who calls what."""

    def __init__(self, hal, files, keys, port, report, frames=FRAMES, slow_ms=SLOW_MS):
        self._hal = hal
        self._stage_region = files.stage
        self._keys = keys
        self._port = port
        self._report = report
        self._frames_needed = frames
        self._slow_ms = slow_ms
        self._buffer = bytearray(BLOCK)  # reading back, hashing, headers and pointers
        self._work_buffer = bytearray(
            BLOCK
        )  # the index block of a transfer, then the output block of unpacking
        self._slots = slots.Slots(files, keys, self._buffer)
        self._problems = [files.problem] if files.problem else []
        self._confirmed = None  # Slot, as far as it is in order
        self._choice = None
        self._trial_slot = None
        self._trial_started_ms = 0
        self._frames = 0
        self._fastest_ms = None
        self._job = None
        self._desired = None  # (generation, release, digest, deadline)
        self._consider = False  # whether it has to be looked at
        self._retry_ms = None  # when it is tried again
        self._backoff_ms = RETRY_MS

    # --- the agent core's side ----------------------------------------------------------------------------

    def boot(self):
        """Find out what to run. Reports a trial that is over."""
        pointer = self._slots.read_pointer()
        crash = "trial-hung" if self._hal.reset_cause() == "watchdog" else "trial-crashed"
        generation = pointer.generation if pointer else 0
        decision = self._choose(crash)
        if decision.ended:
            number, state, reason = decision.ended
            slot = self._looked.get(number)
            if slot:
                self._tell_of(slot.release, generation, state, reason, digest=slot.digest)
            else:
                self._problem("slot-damaged")
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
            reason, detail = error.reason, error.detail
        except MemoryError:
            reason, detail = "out-of-memory", None
        gc.collect()
        self._went_wrong(reason, detail)
        return True

    def on_desired(self, message):
        """What the camera should be running."""
        wanted = (message["generation"], message["release"], message["digest"], message["deadline"])
        if self._desired and wanted[0] < self._desired[0]:
            return
        if wanted == self._desired:
            return  # repeated at every reconnect; what is to be tried again is tried without it
        self._desired = wanted
        self._consider = True
        self._retry_ms = None
        self._backoff_ms = RETRY_MS

    def on_release(self, release_id, payload):
        """The signed manifest of a release. It is only copied here; step() checks it."""
        job = self._job
        if job is None or not job.waiting or release_id != job.release:
            return
        if len(payload) > protocol.MANIFEST_BYTES:
            job.blob = b""  # whatever it was: not signed by anyone we know
        elif job.digest and digest_of(payload) != job.digest:
            self._tell_waiting(job, "digest-mismatch", "the manifest is not the desired one")
        else:
            job.blob = bytes(payload)

    def on_block(self, digest_hex, number, payload):
        """A block of an encoding or of its index."""
        if self._job and self._job.transfer:
            self._job.transfer.on_block(digest_hex, number, payload)

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
        decision = slots.decide(self._slots.pointer, self._look, crash_reason)
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
            generation = self._slots.pointer.generation or (self._desired[0] if self._desired else 0)
            self._job = _Job(slot.release, None, generation, now)
            self._start(slot, now)
        else:
            self._choice = Choice(slot, False) if slot else None
            self._trial_slot = None
            self._confirmed = slot
        return decision

    def _start(self, slot, now):
        """Hand out the slot on trial; its attempt has been counted."""
        self._trial_slot = slot
        self._trial_started_ms = now
        self._frames = 0
        self._fastest_ms = None
        self._choice = Choice(slot, True)
        self._tell("trial", digest=slot.digest)

    def _look(self, number):
        """The slot if it is entirely in order; each is checked once per decision."""
        if number not in self._looked:
            self._looked[number] = self._slots.check_slot(number, self._hal.feed)
        return self._looked[number]

    def _wipe(self, number):
        try:
            if number:
                self._slots.wipe(number)
        except StorageError:
            self._problem("storage-error")  # the pointer does not name it, so nothing depends on this

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
        if self._job:
            return self._job.stage(self._job, now)
        if self._retry_ms is not None and now >= self._retry_ms and self._port.connected:
            self._retry_ms = None
            self._consider = True
            return True
        return False

    def _consider_desired(self, now):
        generation, release, digest = self._desired[:3]
        job = self._job
        if job and release == job.release and (digest is None or job.digest is None or digest == job.digest):
            job.generation = generation
            job.digest = digest
            self._consider = False
        elif self._on_trial():
            if (release is None or self._is_confirmed(release, digest)) and not self._stands_in():
                self._end_trial("operator-cancelled", None, None)
            # else: updates wait while a trial runs, and this one stays to be considered
        elif job:
            self._end("failed", "operator-cancelled", None)
        else:
            self._consider = False
            if release is not None:
                self._begin(now)

    def _stands_in(self):
        """Whether the trial runs because the confirmed slot is damaged: there is nothing to go back to."""
        return bool(self._slots.pointer.flags & slots.FALLBACK)

    def _is_confirmed(self, release, digest):
        slot = self._confirmed
        return bool(slot) and slot.release == release and digest in (None, slot.manifest_digest)

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
        if not self._slots.capacity or self._stage_region is None:
            reason = self._problems[0] if self._problems else "storage-error"
            self._tell_of(release, generation, "rejected", reason, "there are no slots for an update")
            return
        self._job = _Job(release, digest, generation, now)
        self._job.stage = self._await_manifest
        self._job.waiting = True
        self._port.want(self._port.topics.release(release))

    def _went_wrong(self, reason, detail):
        job = self._job
        if self._on_trial():
            self.trial_failed(reason, detail)
        elif job and job.encoding and job.encoding["kind"] == "patch" and reason == "digest-mismatch":
            self._without_patch(job, detail)
        elif job:
            self._end("failed", reason, detail, again=reason == "connection-lost")

    def _end(self, state, reason, detail, again=False):
        """The update is over before its trial."""
        job = self._job
        self._stop_listening(job)
        self._tell(state, reason, detail)
        self._job = None
        if again:
            self._retry_ms = self._hal.ticks_ms() + self._backoff_ms
            self._backoff_ms = min(2 * self._backoff_ms, RETRY_MAX_MS)

    def _stop_listening(self, job):
        if job.waiting:
            self._stop_waiting(job)
        if job.transfer:
            job.transfer.close()
            job.transfer = None

    # --- the stages of a job, in their order: each takes (job, now) and answers whether there is more to do ---

    def _await_manifest(self, job, now):
        if job.blob is not None:
            self._stop_waiting(job)
            job.stage = self._open_manifest
            return True
        if self._port.connected:
            job.waited_ms += now - job.last_ms
            if job.waited_ms >= job.ask_after_ms:
                self._tell_waiting(job, "unknown-release", "no manifest came")
                job.waited_ms = 0
                job.ask_after_ms = min(2 * job.ask_after_ms, RETRY_MAX_MS)
                self._port.want(self._port.topics.release(job.release))
        job.last_ms = now
        return False

    def _stop_waiting(self, job):
        job.waiting = False
        self._port.unwant(self._port.topics.release(job.release))

    def _tell_waiting(self, job, reason, detail):
        if job.told != reason:
            job.told = reason
            self._tell("failed", reason, detail)

    def _open_manifest(self, job, now):
        try:
            manifest = open_manifest(job.blob, self._keys)
        except ManifestError as error:
            state = "failed" if error.reason == "out-of-memory" else "rejected"
            self._end(state, error.reason, error.detail)
            return True
        if manifest["release"] != job.release:
            self._end("rejected", "manifest-invalid", "it is the manifest of another release")
            return True
        pointer = self._slots.pointer
        floor = (pointer.epoch, pointer.sequence) if pointer else (0, 0)
        base = self._confirmed.digest if self._confirmed and not job.full_only else None
        room = self._stage_region.size
        reason = accepts(
            manifest, self._hal.arch(), floor, self._hal.unix(), self._slots.capacity, room, base
        )
        if reason:
            self._end("rejected", reason, None)
            return True
        job.encoding = choose_encoding(manifest, room, base)
        manifest["encodings"] = None
        job.manifest = manifest
        job.transfer = Transfer(self._port, self._stage_region, job.encoding, self._work_buffer, self._buffer)
        job.lap("manifest", now)
        job.reported_ms = now
        self._tell("transferring")
        job.stage = self._pull
        return True

    def _pull(self, job, now):
        transfer = job.transfer
        more = transfer.step(now)
        if transfer.finished:
            job.lap("transfer", now)
            transfer.close()
            self._tell("verifying")
            job.stage = self._prepare
            return True
        if transfer.done != job.reported_done and now - job.reported_ms >= PROGRESS_MS:
            job.reported_ms = now
            job.reported_done = transfer.done
            self._tell("transferring")
        return more

    def _prepare(self, job, _now):
        self._slots.wipe(self._slots.spare)
        gc.collect()  # the window is the largest single piece of an update
        base = self._confirmed.content if self._confirmed else None
        job.unpacker = Unpacker(
            self._stage_region,
            job.encoding,
            job.manifest["content"]["size"],
            self._slots.write_content,
            self._work_buffer,
            base,
        )
        job.stage = self._unpack
        return True

    def _unpack(self, job, now):
        if job.unpacker.step():
            return True
        job.unpacker = None
        self._slots.sync_content()
        content = job.manifest["content"]
        job.check = slots.ContentCheck(
            self._slots.spare_content(content["size"]), content["sha256"], self._buffer
        )
        job.lap("unpack", now)
        job.stage = self._verify
        return True

    def _verify(self, job, now):
        if job.check.step():
            return True
        if not job.check.ok:
            raise UnpackError("the unpacked content is not what the manifest says")
        job.check = None
        self._slots.finish(job.blob)
        job.blob = None
        job.manifest = None
        job.encoding = None
        job.lap("verify", now)
        job.stage = self._start_trial
        return True

    def _start_trial(self, job, now):
        slot = self._slots.read_slot(self._slots.spare)  # exactly as the next boot will see it
        if slot is None:
            raise StorageError("storage-error", "the slot does not read back")
        try:
            self._slots.set_trial(job.generation)
            self._slots.count_attempt()
        except StorageError:
            self._slots.revert()  # at least in memory, so that another update can begin
            raise
        self._start(slot, now)
        return True

    def _without_patch(self, job, detail):
        """The patch did not lead to the content: begin again with the full encoding."""
        self._stop_listening(job)
        job.full_only = True
        job.encoding = None
        job.transfer = job.unpacker = job.check = job.manifest = None
        self._tell("transferring", None, "the patch does not fit, taking the full encoding: %s" % detail)
        job.stage = self._open_manifest

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
            self._slots.wipe(number)
        except StorageError:
            self._problem("storage-error")  # the attempts on storage end it after the next boots
        self._tell("reverted", reason, detail, digest=self._trial_slot.digest)
        self._job = None
        self._choose("trial-crashed")
        self._looked = {}

    # --- reports ------------------------------------------------------------------------------------------

    def _tell(self, state, reason=None, detail=None, **extra):
        """Report about the running job."""
        job = self._job
        if job.transfer:
            extra["blocks"] = {"done": job.transfer.done, "total": job.transfer.total}
            extra["bytes"] = job.transfer.bytes
        if job.ms:
            extra["ms"] = dict(job.ms)
        self._tell_of(job.release, job.generation, state, reason, detail, **extra)

    def _tell_of(self, release, generation, state, reason=None, detail=None, **extra):
        if detail is not None:
            detail = detail[:_DETAIL_CHARS]
        self._report(state, reason, detail, generation=generation, release=release, **extra)
