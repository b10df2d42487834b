"""What a rollout does next, from everything that is known: counts, silence, time, and what cameras see."""

from dataclasses import dataclass, replace
from typing import Final

from fleetd.domain.health import Finding, SignalName, judge
from fleetd.domain.pacing import is_paced
from fleetd.domain.presence import PresenceRules
from fleetd.domain.records import Release, Rollout
from fleetd.domain.rollout import Evidence, Move, Step, Tally, count, next_step, soaking
from fleetd.ports import UnitOfWork
from fleetd.updates.releases import described

BUCKETS_IN_SOAK: Final = 30
BUCKET_S: Final = 60.0  # without a soak
SHORTEST_S: Final = 5.0
LONGEST_S: Final = 900.0
FRESH_S: Final = 5.0  # before a wave begins or a rollout ends, evidence is no older


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is next, and what it rests on."""

    step: Step
    offered: Tally  # all waves begun so far
    wave: Tally  # the newest of them
    evidence: Evidence


def bucket_seconds(soak_s: float) -> float:
    """How long a bucket of observation is: thirty in a soak."""
    return min(max(soak_s / BUCKETS_IN_SOAK, SHORTEST_S), LONGEST_S) if soak_s else BUCKET_S


class Judge:
    """Judges rollouts. What cameras see is read anew once in half a bucket, and before anything irrevocable."""

    def __init__(self, rules: PresenceRules) -> None:
        self._rules = rules
        self._seen: dict[int, tuple[float, tuple[object, ...], Evidence]] = {}

    def verdict(self, work: UnitOfWork, rollout: Rollout, now: float) -> Verdict:
        """What this rollout does now, if it runs."""
        offered, wave = tallies(work, rollout, now, self._rules)
        settled = work.health.settled_at(rollout.id, rollout.wave)
        left = soaking(settled, rollout.settings.soak_s, now)
        known = Evidence(soaking_s=left)
        last = rollout.wave + 1 >= rollout.wave_count
        step = next_step(offered, wave, rollout.settings, last_wave=last, evidence=known)
        if step.move is not Move.HALT and rollout.settings.health and offered.confirmed:
            age = FRESH_S if step.move is not Move.HOLD else bucket_seconds(rollout.settings.soak_s) / 2
            known = replace(self._evidence(work, rollout, now, age), soaking_s=left)
            step = next_step(offered, wave, rollout.settings, last_wave=last, evidence=known)
        return Verdict(step, offered, wave, known)

    def _evidence(self, work: UnitOfWork, rollout: Rollout, now: float, age: float) -> Evidence:
        about = (rollout.wave, rollout.settings)
        seen = self._seen.get(rollout.id)
        if seen is None or abs(now - seen[0]) > age or seen[1] != about:
            if len(self._seen) > 1_000:
                self._seen.clear()
            seen = self._seen[rollout.id] = (now, about, observe(work, rollout, now))
        return seen[2]


def observe(work: UnitOfWork, rollout: Rollout, now: float) -> Evidence:
    """What the cameras that run the release have shown since, beside their past and beside others."""
    settings = rollout.settings
    dark = work.health.dark(rollout.id, rollout.release_id, silence_s=settings.silence_s, now=now)
    dark = replace(dark, silent=max(0, dark.silent - settings.accepted_dark))
    release = work.releases.get(rollout.release_id)
    findings: tuple[Finding, ...] = ()
    if release is not None and release.kind == "model":
        canaries, controls = work.health.watches(
            rollout.id,
            rollout.release_id,
            bucket_s=bucket_seconds(settings.soak_s),
            threshold=described(work.releases.manifest(release.id)).threshold,
            now=now,
        )
        findings = tuple(judge(canaries, controls, _ignored(work, rollout, release)))
    return Evidence(dark, findings)


def tallies(work: UnitOfWork, rollout: Rollout, now: float, rules: PresenceRules) -> tuple[Tally, Tally]:
    """All waves begun so far, and the newest of them."""
    there = rules if is_paced(rollout.settings) else None
    counts = [
        one for one in work.rollouts.counts(rollout.id, now=now, there=there) if one.wave <= rollout.wave
    ]
    return count(counts), count(one for one in counts if one.wave == rollout.wave)


def accept_so_far(work: UnitOfWork, rollout: Rollout, now: float, rules: PresenceRules) -> Rollout:
    """The rollout past what halted it: harm done so far no longer counts, signals that moved are ignored from now
    on, a barren wave is left behind.
    """
    offered, wave = tallies(work, rollout, now, rules)
    settings = replace(rollout.settings, accepted=offered.harmed, accepted_lost=offered.lost)
    if settings.health and offered.confirmed:
        seen = observe(work, rollout, now)
        moved = {one.signal.value for one in seen.findings if one.moved or one.is_doubtful}
        silent = settings.accepted_dark + (seen.dark.silent if seen.dark is not None else 0)
        settings = replace(settings, ignore=tuple(sorted({*settings.ignore, *moved})), accepted_dark=silent)
    rollout = replace(rollout, settings=settings)
    last = rollout.wave + 1 >= rollout.wave_count
    if not last and next_step(offered, wave, settings, last_wave=last).move is Move.HALT:
        rollout = replace(rollout, wave=rollout.wave + 1)
    return rollout


def _ignored(work: UnitOfWork, rollout: Rollout, release: Release) -> tuple[str, ...]:
    """The signals that say nothing here. Other classes than before are another mix of classes by intent."""
    before = work.health.release_before(rollout.id)
    old = None if before is None else work.releases.get(before)
    if old is not None and set(old.labels) != set(release.labels):
        return (*rollout.settings.ignore, SignalName.CLASS_MIX)
    return rollout.settings.ignore
