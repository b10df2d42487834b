"""Whether a release changed what cameras see, and not for the better.

Cameras that confirmed a release (canaries) are compared with their own past and with cameras that do not run it
(controls), bucket of time by bucket of time. What happens to all, a cloud or the end of a shift, happens to the
controls too and is taken off. A signal halts only when both hold:

- it moved *surely*: the evidence against chance (`evidence.py`, safe to look at any time) is `NEEDED` or more;
- it moved *far*: by the signal's limit or more, for half of the canaries.

A release that goes wrong on some cameras only moves no mean. So two canaries that each moved far and surely halt, too;
how sure they must be grows with the number of pairs there are, `sqrt(pairs * NEEDED)`. That takes cameras for
independent once the controls are taken off. One of many that moved alone was knocked over.

The unit is a bucket, never a frame: a thousand frames of one sunny minute are one observation.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, median
from typing import Final, NamedTuple

from fleetd.domain.evidence import against_chance, together

CHANCE: Final = 0.02  # of a false halt in a whole rollout, all signals together
MIN_RESULTS: Final = 3  # in a bucket; fewer tell a rate, but no mix
MIN_CONTROLS: Final = 3  # in a bucket, to take off what happens to all
FEW: Final = 4  # fewer canaries than these: one that moved is enough
DOUBT: Final = 4.0  # evidence with which a very large move holds the next wave up
NAMED: Final = 10  # cameras in a finding


class SignalName(StrEnum):
    """What is watched of a model."""

    CLASS_MIX = "class-mix"
    CONFIDENCE = "confidence"
    MARGIN = "margin"
    UNKNOWN = "unknown"
    INFERENCE_TIME = "inference-time"
    RESULT_RATE = "result-rate"
    FROZEN = "frozen-picture"


class Bucket(NamedTuple):
    """What a camera saw in one bucket of time. What is not known is None."""

    results: int
    labels: Mapping[str, int]
    score: float | None = None  # mean of the best scores
    margin: float | None = None  # mean of best minus second best
    unknown: float | None = None  # share of results below the release's threshold
    inference_ms: float | None = None
    frozen: bool = False  # every result the same label with the same score


@dataclass(frozen=True, slots=True)
class Watch:
    """One camera's buckets by number. `changed`: the first bucket with the release alone; None for a control.

    Buckets from `left` (exclusive) to `changed` belong to the update itself and count for nothing.
    """

    camera: str
    buckets: Mapping[int, Bucket]
    changed: int | None = None
    left: int | None = None

    @property
    def before(self) -> list[int]:
        """The buckets of its own past, in order."""
        end = self.changed if self.left is None else self.left
        return sorted(number for number in self.buckets if end is None or number < end)

    @property
    def after(self) -> list[int]:
        """The buckets with the release, in order."""
        changed = self.changed
        return [] if changed is None else sorted(number for number in self.buckets if number >= changed)


@dataclass(frozen=True, slots=True)
class Finding:
    """One signal: its mean before and after, how far and how surely it moved, and on which cameras most."""

    signal: SignalName
    before: float
    after: float
    size: float  # in the signal's unit, controls taken off; more is worse
    limit: float
    evidence: float
    moved: bool
    cameras: tuple[str, ...]

    @property
    def is_doubtful(self) -> bool:
        """Whether it moved twice as far as it may, though too little is known to be sure: a short past, few buckets."""
        return not self.moved and self.size >= 2 * self.limit and self.evidence >= DOUBT

    def __str__(self) -> str:
        signal = SIGNALS[self.signal]
        return f"{signal.words}: {signal.show(self.before)} before, {signal.show(self.after)} now"


@dataclass(frozen=True, slots=True)
class Signal:
    """How a signal is read from a bucket (larger is worse) and how far it may move."""

    words: str
    limit: float
    read: Callable[[Bucket, Counter[str]], float | None]
    show: Callable[[float], str]


def stability(now: Mapping[str, int], then: Mapping[str, int]) -> float:
    """Population stability index of two class counts: 0 the same, above 0.25 another mix. Empty classes count."""
    classes = now.keys() | then.keys()
    mine, other = sum(now.values()) + 0.5 * len(classes), sum(then.values()) + 0.5 * len(classes)
    if not classes:
        return 0.0
    total = 0.0
    for label in classes:
        p, q = (now.get(label, 0) + 0.5) / mine, (then.get(label, 0) + 0.5) / other
        total += (p - q) * math.log(p / q)
    return total


def _mix(bucket: Bucket, past: Counter[str]) -> float | None:
    return stability(bucket.labels, past) if bucket.results >= MIN_RESULTS and past else None


def _falls(name: str) -> Callable[[Bucket, Counter[str]], float | None]:
    def read(bucket: Bucket, _past: Counter[str]) -> float | None:
        value = getattr(bucket, name)
        return None if value is None or bucket.results < MIN_RESULTS else -float(value)

    return read


def _unknown(bucket: Bucket, _past: Counter[str]) -> float | None:
    return bucket.unknown if bucket.results >= MIN_RESULTS else None


def _slowness(bucket: Bucket, _past: Counter[str]) -> float | None:
    return None if bucket.inference_ms is None else math.log(max(bucket.inference_ms, 0.1))


def _scarcity(bucket: Bucket, _past: Counter[str]) -> float | None:
    return -math.log(bucket.results + 1)


def _frozen(bucket: Bucket, _past: Counter[str]) -> float | None:
    return float(bucket.frozen) if bucket.results >= MIN_RESULTS else None


def _negative(digits: int) -> Callable[[float], str]:
    return lambda value: f"{-value:.{digits}f}"


SIGNALS: Final[Mapping[SignalName, Signal]] = {
    SignalName.CLASS_MIX: Signal(
        "distance of the classes from what was seen before", 0.25, _mix, "{:.2f}".format
    ),
    SignalName.CONFIDENCE: Signal("mean best score", 0.10, _falls("score"), _negative(2)),
    SignalName.MARGIN: Signal("mean lead over the second best class", 0.15, _falls("margin"), _negative(2)),
    SignalName.UNKNOWN: Signal("share below the threshold", 0.15, _unknown, "{:.0%}".format),
    SignalName.INFERENCE_TIME: Signal(
        "time per inference", math.log(1.5), _slowness, lambda value: f"{math.exp(value):.0f} ms"
    ),
    SignalName.RESULT_RATE: Signal(
        "results per bucket", math.log(2), _scarcity, lambda value: f"{math.exp(-value) - 1:.1f}"
    ),
    SignalName.FROZEN: Signal("share of time with one unchanging answer", 0.5, _frozen, "{:.0%}".format),
}
NEEDED: Final = 2 * len(SIGNALS) / CHANCE  # two ways to halt for each signal


class _Series(NamedTuple):
    """One canary's readings: deviations from its own past, controls taken off, by distance from the change."""

    camera: str
    level: float  # mean of the past as read
    before: Mapping[int, float]
    after: Mapping[int, float]
    size: float


def judge(
    canaries: Sequence[Watch], controls: Sequence[Watch], ignored: Collection[str] = ()
) -> list[Finding]:
    """Every signal that can be read and is not ignored, the surest first."""
    found = (_judge(name, canaries, controls) for name in SIGNALS if name not in ignored)
    return sorted((one for one in found if one is not None), key=lambda one: (-one.moved, -one.evidence))


def _judge(name: SignalName, canaries: Sequence[Watch], controls: Sequence[Watch]) -> Finding | None:
    signal = SIGNALS[name]
    common = _common(signal, controls)
    series = [one for one in (_series(signal, watch, common) for watch in canaries) if one is not None]
    if not series:
        return None
    group = _mean_series(series)
    single = {one.camera: against_chance([*one.before.values()], _in_order(one.after)) for one in series}
    evidence = single[series[0].camera]
    if len(series) > 1:
        all_together = against_chance([*group.before.values()], _in_order(group.after))
        evidence = together([all_together, together([*single.values()])])
    count = len(series)
    few = count < FEW
    needed = NEEDED * count if few else math.sqrt(math.comb(count, 2) * NEEDED)
    sure = [one for one in series if one.size >= signal.limit and single[one.camera] >= needed]
    together_far = group.size >= signal.limit and evidence >= NEEDED
    some_far = len(sure) >= (1 if few else 2)
    if some_far and not few:
        best, second = sorted(single.values())[-1:-3:-1]
        evidence = max(evidence, best * second / math.comb(count, 2))
    ranked = sorted(series, key=lambda one: -one.size)
    return Finding(
        signal=name,
        before=fmean(one.level for one in series),
        after=fmean(one.level for one in series) + group.size,
        size=group.size if together_far or not sure else fmean(one.size for one in sure),
        limit=signal.limit,
        evidence=evidence,
        moved=together_far or some_far,
        cameras=tuple(one.camera for one in ranked if one.size >= signal.limit)[:NAMED],
    )


def _readings(signal: Signal, watch: Watch) -> dict[int, float]:
    """The signal in each bucket. A bucket of the past is compared with the rest of the past, without itself."""
    past = set(watch.before) if signal.read is _mix else set()
    known: Counter[str] = Counter()
    for number in past:
        known.update(watch.buckets[number].labels)
    found = {}
    for number, bucket in watch.buckets.items():
        others = known - Counter(bucket.labels) if number in past else known
        value = signal.read(bucket, others)
        if value is not None:
            found[number] = value
    return found


def _common(signal: Signal, controls: Sequence[Watch]) -> Mapping[int, float]:
    """What befell everybody in a bucket: the median deviation of the controls from what is usual for each."""
    deviations: dict[int, list[float]] = {}
    for watch in controls:
        readings = _readings(signal, watch)
        if readings:
            usual = median(readings.values())
            for number, value in readings.items():
                deviations.setdefault(number, []).append(value - usual)
    return {number: median(values) for number, values in deviations.items() if len(values) >= MIN_CONTROLS}


def _series(signal: Signal, watch: Watch, common: Mapping[int, float]) -> _Series | None:
    readings = _readings(signal, watch)
    past = [number for number in watch.before if number in readings]
    later = [number for number in watch.after if number in readings]
    if not past or not later or watch.changed is None:
        return None
    level = fmean(readings[number] for number in past)
    origin = watch.changed

    def deviations(numbers: Iterable[int]) -> dict[int, float]:
        return {number - origin: readings[number] - level - common.get(number, 0.0) for number in numbers}

    before, after = deviations(past), deviations(later)
    return _Series(watch.camera, level, before, after, fmean(after.values()) - fmean(before.values()))


def _mean_series(series: Sequence[_Series]) -> _Series:
    """The mean of several, where at least half of them have something to say."""
    least = (len(series) + 1) // 2

    def mean(parts: Sequence[Mapping[int, float]]) -> dict[int, float]:
        values: dict[int, list[float]] = {}
        for part in parts:
            for place, value in part.items():
                values.setdefault(place, []).append(value)
        return {place: fmean(some) for place, some in values.items() if len(some) >= least}

    before, after = mean([one.before for one in series]), mean([one.after for one in series])
    return _Series("", 0.0, before, after, median(one.size for one in series))


def _in_order(readings: Mapping[int, float]) -> list[float]:
    return [readings[place] for place in sorted(readings)]
