"""The boot-loop guard: with which agent, and how, a camera starts after failures. Pure.

    plan(pointer, look, cause)     -> Plan; what has to be on storage before that is plan.pointer

A start counts as failed when the next one comes without the agent having proved itself in between (`open`): a crash
for three, a lost supply for one, so that a flickering mains does not look like a broken camera. Planned restarts and
waking up do not count.

    below 9     normal
    from 9 on   safe mode: network, broker and updates, but no camera and no model
    from 18 on  safe mode with the agent in the files on the drive, whatever was sent over the air

RAM BUDGET: 2 KB of code, loaded at the start.
"""

from camera_agent.decision import decide
from camera_agent.heap import const
from camera_agent.pointer import CRASH, FILES_ONLY, GAVE_UP, REASONS, SAFE, Pointer

_LOST_SUPPLY = const(1)


class Plan:
    """`slot`: 1, 2 or 0 for the files; `trial`; `safe`: safe mode; `pointer`: to be written first, or None; `ended`:
    (slot, reason) of an agent's trial that is over, or None; `problem`: a word for the status, or None."""

    def __init__(self, slot, trial, safe, pointer, ended, problem):
        self.slot = slot
        self.trial = trial
        self.safe = safe
        self.pointer = pointer
        self.ended = ended
        self.problem = problem


def plan(pointer, look, cause):
    """How to start. `pointer`: the boot record or None; `look(slot)`: see decision.decide(); `cause`: why the camera
    starts, a word of the contract."""
    known = pointer or Pointer()
    is_waking = cause == "deepsleep"
    failures = known.failures
    if known.open and not is_waking:
        failures += _LOST_SUPPLY if cause in ("power-on", "brown-out") else CRASH
        failures = min(failures, FILES_ONLY)
    if failures >= FILES_ONLY:
        last = known.but(failures=failures, open=known.open if is_waking else 1)
        return Plan(0, False, True, _changed(last, pointer), None, None)
    reason = "trial-hung" if cause == "watchdog" else "trial-crashed"
    if known.attempts == GAVE_UP:
        reason = REASONS[known.why] if known.why < len(REASONS) else reason
    decision = decide(pointer, look, reason)
    now = decision.pointer or known
    ended = decision.ended and (decision.ended[0], decision.ended[2])
    use, trial = decision.use, decision.trial
    if trial and pointer is not None and not known.confirmed and use != known.trial:
        use, trial = 0, False  # the files on the drive come before an agent that was never confirmed
        now = now.but(trial=0, attempts=0, flags=0)
    if trial:  # its attempts are counted instead
        return Plan(use, True, False, now.but(failures=0, open=0), ended, decision.problem)
    if ended:
        failures = 0  # it was the trial that failed
    now = now.but(failures=failures, open=known.open if is_waking else 1)
    problem = decision.problem if decision.problem == "slot-damaged" else None
    return Plan(use, False, failures >= SAFE, _changed(now, pointer), ended, problem)


def _changed(now, pointer):
    return None if pointer is not None and now == pointer else now
