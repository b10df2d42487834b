"""What Agents (camera_agent/agents.py) does when there is something to do.

An agent on trial is confirmed when it has been connected, fleetd has stored something it said, and, where there are a
model and a camera, it has classified. One that raises again and again, or gets nowhere, is given up; one that hangs or
crashes is given up by camera_agent/boot.py.

RAM BUDGET: 3 KB of code, loaded when it is needed; all the time only while an agent is on trial.
"""

from camera_agent.errors import StorageError
from camera_agent.heap import const
from camera_agent.pointer import GAVE_UP, PROBATION, why_code

_TRIAL_LEAST_MS = const(20_000)
_TRIAL_MS = const(900_000)
_NO_RECEIPT_MS = const(120_000)  # connected for so long proves as much, where fleetd is not there to answer
_TROUBLES = const(5)  # exceptions that end a trial


def base(agents):
    """The confirmed agent's Slot, or None."""
    pointer = agents.slots.pointer
    return agents.slots.read_slot(pointer.confirmed) if pointer and pointer.confirmed else None


def try_next(agents, generation):
    """Let the agent in the spare slot start next."""
    slot = agents.slots.read_slot(agents.slots.spare)
    if slot is None:
        raise StorageError("storage-error", "the agent's slot does not read back")
    if agents.slots.pointer:  # however the agent before has failed: this one gets its starts
        agents.slots.pointer = agents.slots.pointer.but(failures=0, open=0)
    agents.slots.set_trial(generation)
    agents.wants_restart = True
    return slot


def begin(agents):
    """Report what the start has brought."""
    ended = agents.facts.get("ended")
    if ended and ended["id"]:
        _tell(agents, "reverted", ended, ended["generation"], ended["reason"])
    if agents.on_trial:
        _tell(agents, "trial", agents.release, _generation(agents))


def prove(agents):
    """This start was a good one; in safe mode the failures before it still count."""
    agents.is_proven = True
    _note(agents, _failures(agents) if agents.is_safe else 0)


def leave_safe_mode(agents):
    """One more failure leads back there."""
    _note(agents, PROBATION)
    agents.is_safe = False
    agents.wants_restart = True


def close(agents):
    """See Agents.close(). Raises StorageError."""
    slots = agents.slots
    if not agents.on_trial:
        _note(agents, _failures(agents))
    elif slots.pointer.attempts:
        slots.write_pointer(slots.pointer.but(attempts=slots.pointer.attempts - 1))


def judge(agents, now, outbox, vision, trouble):
    """Confirm the agent on trial, give it up, or wait."""
    since = None if agents.connected_at is None else now - agents.connected_at
    has_seen = vision.frames > 0 or not vision.has_model or not vision.has_eye
    is_heard = since is not None and (outbox.receipted or since >= _NO_RECEIPT_MS)
    if trouble.count >= _TROUBLES:
        _give_up(agents, "trial-crashed")
    elif is_heard and has_seen and now >= _TRIAL_LEAST_MS:
        _confirm(agents)
    elif now >= _TRIAL_MS:
        _give_up(agents, "connection-lost" if since is None else "trial-hung")


def _confirm(agents):
    slots, release = agents.slots, agents.release
    pointer = slots.pointer
    epoch, sequence = max((pointer.epoch, pointer.sequence), (release["epoch"], release["sequence"]))
    proven = pointer.but(
        confirmed=pointer.trial, trial=0, attempts=0, flags=0, epoch=epoch, sequence=sequence
    )
    try:
        slots.write_pointer(proven)
    except StorageError:
        return  # it is tried again with the next look; if that fails for long, the trial ends
    agents.on_trial = False
    agents.confirmed = release
    agents.is_proven = True
    _tell(agents, "confirmed", release, pointer.generation)


def _give_up(agents, reason):
    """The next start goes back; it is told there."""
    slots = agents.slots
    try:
        slots.write_pointer(slots.pointer.but(attempts=GAVE_UP, why=why_code(reason)))
    except StorageError:
        pass  # then its attempts are counted until it is over
    agents.wants_restart = True


def _generation(agents):
    pointer = agents.slots.pointer if agents.slots else None
    return pointer.generation if pointer else 0


def _failures(agents):
    return agents.slots.pointer.failures if agents.slots.pointer else 0


def _tell(agents, state, release, generation, reason=None):
    agents.report(state, reason, None, generation=generation, release=release["id"], digest=release["digest"])


def _note(agents, failures):
    """Write down that this start does not count, if that changes anything."""
    slots = agents.slots
    pointer = slots.pointer
    if pointer is None or (not pointer.open and pointer.failures == failures):
        return
    try:
        slots.write_pointer(pointer.but(open=0, failures=failures))
    except StorageError:
        if "boot-record-unusable" not in agents.problems:
            agents.problems.append("boot-record-unusable")
