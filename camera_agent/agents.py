"""The agent's own slots while it runs: new agents for them, its own trial, and the word that a start went well.

    agents = Agents(hal, files, keys, buffer, facts, report)     # facts: see boot.choose(); report: as the Updater's
    agents.begin()                   # once: reports an agent that was given up, or that this one is on trial
    agents.look(now, link, outbox, vision, trouble)      # now and then: proves the start, ends the trial
    agents.wants_restart             # a new agent waits for its trial, or this one has failed it
    agents.close()                   # before every restart that is meant: it does not count as a failed start

Slots and records are those of models (camera_agent/slots.py). The work is in camera_agent/proving.py, loaded when there
is some: most of the time there is none.

RAM BUDGET: 1 KB of code, under 1 KB of objects.
"""

from camera_agent.heap import const, forget, load
from camera_agent.slots import Slots

_PROVEN_MS = const(60_000)  # a start that has lasted so long was a good one
_SAFE_MS = const(3_600_000)  # in safe mode, until the camera tries again
_SHOWN = ("id", "digest", "sequence", "epoch", "slot")


class _Regions:
    """The agent's regions under the names that Slots expects."""

    def __init__(self, files):
        self.slot_a, self.slot_b = files.agent_a, files.agent_b
        self.pointer_0, self.pointer_1 = files.boot_0, files.boot_1


class Agents:
    """See the module's docstring."""

    def __init__(self, hal, files, keys, buffer, facts, report):
        self.report = report
        self.facts = facts
        self.slots = None
        self.can_change = False
        self.on_trial = bool(facts.get("trial"))
        self.is_safe = bool(facts.get("safe"))
        self.release = facts.get("release")  # of the agent that runs
        self.confirmed = facts.get("confirmed")
        self.wants_restart = False
        self.problems = [facts["problem"]] if facts.get("problem") else []
        self.connected_at = None
        self.is_proven = False
        if files.boot_0 is not None and files.agent_a is not None:
            self.can_change = hal.can_change_agent()
            self.slots = Slots(_Regions(files), keys, buffer)
            self.slots.read_pointer()

    # --- for the updater and the status -----------------------------------------------------------------------

    @property
    def is_busy(self):
        """Whether nothing else may be tried now."""
        return self.on_trial or self.wants_restart

    def is_confirmed(self, release, digest):
        """Whether this release is the agent that is confirmed. `digest`: of its signed manifest, or None."""
        known = self.confirmed
        return known is not None and known["id"] == release and digest in (None, known["manifest"])

    def failed_before(self, release):
        """Why this release was given up here, or None."""
        return self.slots.failed_before(release) if self.slots else None

    def base(self):
        """The confirmed agent's slot, for patches, or None."""
        return self._do("base")

    def try_next(self, generation):
        """The spare slot is written: it starts next. Answers it. Raises StorageError."""
        return self._do("try_next", generation)

    def trial(self):
        """The release of the agent on trial, or None."""
        return self.release["id"] if self.on_trial and self.release else None

    def status(self):
        """The confirmed agent for `up/status`, None when that is the one on the drive."""
        known = self.confirmed
        return None if known is None else {name: known[name] for name in _SHOWN}

    # --- for the agent's core ---------------------------------------------------------------------------------

    def begin(self):
        """Say how the last trial ended, and that there is one now."""
        if self.on_trial or self.facts.get("ended"):
            self._do("begin")

    def look(self, now, link, outbox, vision, trouble):
        """See whether this start, and the agent if it is on trial, has proven itself."""
        if self.wants_restart or self.slots is None:
            return
        if self.connected_at is None and link.connected:
            self.connected_at = now
        if self.on_trial:
            self._do("judge", now, outbox, vision, trouble)
        elif not self.is_proven and now >= _PROVEN_MS:
            self._do("prove")
        elif self.is_safe and now >= _SAFE_MS:
            self.leave_safe_mode()

    def leave_safe_mode(self):
        """The next start is an ordinary one."""
        self._do("leave_safe_mode")

    def close(self):
        """A restart that is meant follows, or a pause. It counts neither as a failure nor as a start of a trial."""
        if self.slots is not None and not self.wants_restart:
            self._do("close")

    def _do(self, what, *args):
        try:
            return getattr(load("proving"), what)(self, *args)
        finally:
            if not self.on_trial:
                forget("proving")
