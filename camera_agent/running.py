"""What runs: the slot that is confirmed or on trial, the trial's frames, and the way back.

    running = Running(hal, slots, problems)
    running.boot(crash_reason), running.choose(crash_reason)    decides, writes, sets `choice`
    running.start(slot, now)                  a slot on trial, its attempt already counted
    running.frame_ok(inference_ms)            a live frame was classified
    running.confirm(), running.flip_back(failed_slot, reason)    how a trial ends

The Updater owns it and reports about it.

RAM BUDGET: one or two Slot objects of about 2 KB.
"""

from camera_agent.errors import StorageError
from camera_agent.heap import collect, forget, load
from camera_agent.pointer import FALLBACK


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
        self.golden = manifest["golden"]
        self.files = manifest["content"]["files"]
        self.content = slot.content


class Running:
    """See the module's docstring."""

    def __init__(self, hal, slots, problems):
        """`problems`: a list of words for the status, which grows here."""
        self._hal = hal
        self._slots = slots
        self.problems = problems
        self.confirmed = None  # Slot, as far as it is in order
        self.choice = None
        self.slot = None  # the one on trial
        self.since_ms = 0
        self.frames = 0
        self.fastest_ms = None
        self._looked = {}  # slots by number, checked for the decision at hand

    @property
    def on_trial(self):
        """Whether the choice has yet to prove itself."""
        return self.choice is not None and self.choice.trial

    def boot(self, crash_reason):
        """choose() at boot."""
        ended = self.choose(crash_reason)
        if self.on_trial:
            # what it replaces is reported as running until the trial is over; its content is not needed for that
            confirmed = self._slots.pointer.confirmed
            self.confirmed = self._slots.read_slot(confirmed) if confirmed else None
        return ended

    def choose(self, crash_reason):
        """Decide, write what has to be written first, and set the choice. Answers (Slot or None, state, reason) of a
        trial that is over with it; None when there was none."""
        self._looked = {}
        try:
            decision = load("decision").decide(self._slots.pointer, self._look, crash_reason)
        except (StorageError, MemoryError) as error:  # without the code for it there is no model either
            self.problem("out-of-memory" if isinstance(error, MemoryError) else "storage-error")
            self.choice = self.slot = self.confirmed = None
            return None
        finally:
            forget("decision")
        use, trial = decision.use, decision.trial
        try:
            if decision.pointer:
                self._slots.write_pointer(decision.pointer)
        except StorageError:
            self.problem("storage-error")
            if trial:  # its attempt could not be counted, so it must not run
                confirmed = self._slots.pointer.confirmed if self._slots.pointer else 0
                use, trial = (confirmed if confirmed and self._look(confirmed) else 0), False
        else:
            self.wipe(decision.wipe)
        if decision.problem:
            self.problem(decision.problem)
        slot = self._look(use) if use else None
        if slot and trial:
            self.start(slot, self._hal.ticks_ms())
        else:
            self.choice = Choice(slot, False) if slot else None
            self.slot = None
            self.confirmed = slot
        ended = decision.ended and (self._looked.get(decision.ended[0]), decision.ended[1], decision.ended[2])
        self._looked = {}
        return ended

    def _look(self, number):
        """The slot if it is entirely in order; each is checked once per decision."""
        if number not in self._looked:
            try:
                self._looked[number] = self._slots.check_slot(number, self._hal.feed)
            except MemoryError:
                collect()
                self.problem("out-of-memory")
                self._looked[number] = None
        return self._looked[number]

    def start(self, slot, now):
        """Hand out the slot on trial; its attempt has been counted."""
        self.slot = slot
        self.since_ms = now
        self.frames = 0
        self.fastest_ms = None
        self.choice = Choice(slot, True)

    def stands_in(self):
        """Whether the trial runs because nothing else is in order: there is nothing to go back to."""
        return bool(self._slots.pointer.flags & FALLBACK)

    def frame_ok(self, inference_ms):
        """A live frame of the trial was classified."""
        self.frames += 1
        if self.fastest_ms is None or inference_ms < self.fastest_ms:
            self.fastest_ms = inference_ms

    def confirm(self):
        """The trial's slot is the one that counts from now on; answers it. Raises StorageError."""
        slot = self.slot
        self._slots.confirm(slot)
        self.confirmed = slot
        self.choice.trial = False
        self.slot = None
        return slot

    def flip_back(self, failed_slot, reason):
        """The pointer forgets the trial; `failed_slot` is remembered as failed. Answers the slot that was on trial;
        choose() has to follow."""
        slot = self.slot
        try:
            self._slots.revert(failed_slot, reason)
        except StorageError:
            self.problem("storage-error")  # the attempts on storage end it after the next boots
        else:
            self.wipe(slot.number)
        self.choice = None
        self.slot = None
        return slot

    def wipe(self, number):
        """Make a slot invalid that the pointer does not name; 0 is none."""
        try:
            if number:
                self._slots.wipe(number)
        except StorageError:
            self.problem("storage-error")  # the pointer does not name the slot, so nothing depends on this

    def problem(self, word):
        """Something for the status that stays true until the next start."""
        if word not in self.problems:
            self.problems.append(word)
