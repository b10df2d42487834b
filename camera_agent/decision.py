"""What to run at boot and after a trial, from what the pointer and the slots say. All of it is pure.

RAM BUDGET: 2 KB of code, loaded when there is something to decide.
"""

from camera_agent.heap import const
from camera_agent.pointer import FALLBACK, Pointer, why_code

ATTEMPTS = const(2)  # how often a trial may start before it is reverted
FALLBACK_ATTEMPTS = (
    8  # nothing stands behind a fallback: a few unlucky power cuts must not cost the last model
)


class Decision:
    """What to do at boot. `use`: slot to run (0: none). `trial`: whether it is one. `pointer`: what has to be on
    storage before that, or None when nothing changes. `ended`: (slot, state, reason) of a trial that is over, or
    None. `wipe`: the slot whose header is to be wiped afterwards (0: none). `problem`: a word for the status."""

    def __init__(self, use, trial, pointer, ended, wipe, problem):
        self.use = use
        self.trial = trial
        self.pointer = pointer
        self.ended = ended
        self.wipe = wipe
        self.problem = problem


def decide(pointer, look, crash_reason="trial-crashed"):
    """Which slot to run and what to write first. Pure, given `look`.

    `look(slot)` answers the slot's facts (.epoch, .sequence, .mark), or None when header, signature or content are
    not in order; it is expensive and only asked where the answer matters. Rules:
    - a trial that has started twice (a fallback: eight times) is over: reverted, remembered by its mark, wiped;
    - a trial below the floor or damaged is dropped, without a mark: the release may be sent again;
    - the confirmed slot runs, whatever the floor says;
    - if it is damaged, the other slot stands in, on trial, unless that release has failed its trial; should the
      confirmed one read well again, it runs again;
    - without any pointer the older of two valid slots is the one that has proven itself (a newer one may never
      have run); a single valid slot runs on trial.
    """
    if pointer is None:
        return _decide_without_pointer(look)
    now, ended, wipe = pointer, None, 0
    if pointer.trial:
        facts = look(pointer.trial)
        floor = (pointer.epoch, pointer.sequence)
        fallback = pointer.flags & FALLBACK
        if fallback and pointer.confirmed and look(pointer.confirmed):
            healed = pointer.but(trial=0, attempts=0, flags=0)
            return Decision(pointer.confirmed, False, healed, None, 0, None)
        if pointer.attempts >= (FALLBACK_ATTEMPTS if fallback else ATTEMPTS):
            ended = (pointer.trial, "reverted", crash_reason)
            mark = facts.mark if facts else pointer.failed
            why = why_code(crash_reason) if facts else pointer.why
            now = pointer.but(trial=0, attempts=0, flags=0, failed=mark, why=why)
            wipe = pointer.trial
        elif facts is None or ((facts.epoch, facts.sequence) < floor and not fallback):
            ended = (pointer.trial, "failed", "digest-mismatch" if facts is None else "sequence-too-old")
            now = pointer.but(trial=0, attempts=0, flags=0)
            wipe = pointer.trial
        else:
            return Decision(pointer.trial, True, pointer.but(attempts=pointer.attempts + 1), None, 0, None)
    changed = None if now is pointer else now
    if now.confirmed and look(now.confirmed):
        return Decision(now.confirmed, False, changed, ended, wipe, None)
    problem = "slot-damaged" if now.confirmed else None
    for slot in (1, 2):
        if slot in (now.confirmed, wipe):
            continue
        facts = look(slot)
        if facts and facts.mark != now.failed:
            standing_in = now.but(trial=slot, attempts=1, flags=FALLBACK, generation=0)
            return Decision(slot, True, standing_in, ended, wipe, problem)
    return Decision(0, False, changed, ended, wipe, problem or "no-model")


def _decide_without_pointer(look):
    fresh = Pointer()
    a, b = look(1), look(2)
    if a and b:
        older = 1 if (a.epoch, a.sequence) <= (b.epoch, b.sequence) else 2
        facts = a if older == 1 else b
        pointer = fresh.but(confirmed=older, epoch=facts.epoch, sequence=facts.sequence)
        return Decision(older, False, pointer, None, 0, "pointer-lost")
    if a or b:
        slot = 1 if a else 2
        return Decision(
            slot, True, fresh.but(trial=slot, attempts=1, flags=FALLBACK), None, 0, "pointer-lost"
        )
    return Decision(0, False, None, None, 0, "no-model")
