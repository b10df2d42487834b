"""What a classification costs in energy, and how long a battery lasts.

Currents are mean values at the board's supply input. Charge (mAh) follows from current and time alone; energy (mJ)
also needs the supply's voltage, which the published measurements do not tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from fleetd.errors import InvalidError

HOURS_A_DAY: Final = 24.0
SECONDS_AN_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One square picture size (edge in pixels): frames per second, inference in ms, current in mA while at it."""

    size: int
    fps: float
    inference_ms: float
    current_ma: float

    @property
    def frame_ms(self) -> float:
        """A whole frame: exposure, transfer, inference and what is done with the result."""
        return 1000.0 / self.fps

    @property
    def rest_ms(self) -> float:
        """A frame's time that is not inference: mostly the picture."""
        return self.frame_ms - self.inference_ms


@dataclass(frozen=True, slots=True)
class PowerFigures:
    """What a board draws, in mA: with nothing to do, in deep sleep (None: unknown), and while it classifies.

    `currents` are by picture size. `measured` is the whole table they came from, if there is one.
    """

    board: str
    source: str
    idle_ma: float
    sleep_ma: float | None
    currents: tuple[tuple[int, float], ...]
    measured: tuple[Measured, ...] = ()

    def active_ma(self, size: int) -> float:
        """The current while classifying pictures of this size: between two measured sizes in proportion to the
        edge, outside of them the nearest.
        """
        points = sorted(self.currents)
        if size <= points[0][0]:
            return points[0][1]
        for (below, less), (above, more) in pairwise(points):
            if size <= above:
                return less + (size - below) / (above - below) * (more - less)
        return points[-1][1]

    def at(self, size: int) -> Measured | None:
        """What was measured with exactly this size."""
        return next((one for one in self.measured if one.size == size), None)


# A 96x96 classifier of two classes from Edge Impulse, pictures of four sizes, a multimeter in series with VIN; no
# radio was on. Deep sleep is what OpenMV names for this board.
_RT1062_TABLE: Final = (
    Measured(240, 11.23, 74.0, 200.0),
    Measured(320, 10.43, 75.0, 200.0),
    Measured(640, 6.16, 78.0, 200.0),
    Measured(1024, 3.18, 85.0, 210.0),
)
RT1062: Final = PowerFigures(
    board="OMVRT1060",
    source="R. Bandini, OpenMV RT1062, 2024: github.com/ronibandini/openMVClassificationPerformance",
    idle_ma=110.0,
    sleep_ma=0.03,
    currents=tuple((one.size, one.current_ma) for one in _RT1062_TABLE),
    measured=_RT1062_TABLE,
)
FIGURES: Final = (RT1062,)


def figures_for(arch: str | None) -> PowerFigures | None:
    """The figures for a board as it names itself (`omv.arch()`), or None when nobody has measured it."""
    name = (arch or "").split(" ")[0]
    return next((one for one in FIGURES if one.board == name), None)


def with_own(
    published: PowerFigures | None,
    *,
    board: str,
    active_ma: float | None = None,
    idle_ma: float | None = None,
    sleep_ma: float | None = None,
) -> PowerFigures:
    """Published figures (if any) with somebody's own measurements in their place: one current for all sizes."""
    if published is None and (active_ma is None or idle_ma is None):
        raise InvalidError(f"No currents are known for {board!r}: measure it at work and at rest.")
    base = published or PowerFigures(board=board, source="", idle_ma=0.0, sleep_ma=None, currents=())
    own = {"active": active_ma, "idle": idle_ma, "deep sleep": sleep_ma}
    given = ", ".join(name for name, value in own.items() if value is not None)
    return PowerFigures(
        board=base.board,
        source=f"your own ({given})" + (f", else {base.source}" if base.source else ""),
        idle_ma=base.idle_ma if idle_ma is None else idle_ma,
        sleep_ma=base.sleep_ma if sleep_ma is None else sleep_ma,
        currents=base.currents if active_ma is None else ((1, active_ma),),
        measured=base.measured,
    )


@dataclass(frozen=True, slots=True)
class Supply:
    """Mean currents of one camera in mA, and its supply's voltage."""

    active_ma: float
    idle_ma: float
    volts: float

    def __post_init__(self) -> None:
        if not 0 < self.idle_ma <= self.active_ma or not self.volts > 0:
            raise InvalidError(
                f"A camera cannot draw {self.active_ma:g} mA at work, {self.idle_ma:g} mA at rest at {self.volts:g} V: "
                "each has to be above zero, and work takes at least as much as rest."
            )


@dataclass(frozen=True, slots=True)
class Cost:
    """What something takes: all of it, and what is left when the idle current is not counted."""

    mah: float
    mj: float
    above_idle_mj: float


def cost_of(duration_ms: float, supply: Supply) -> Cost:
    """What `duration_ms` of work takes."""
    hours = duration_ms / 1000.0 / SECONDS_AN_HOUR
    above = supply.active_ma - supply.idle_ma
    return Cost(
        mah=supply.active_ma * hours,
        mj=supply.active_ma * supply.volts * duration_ms / 1000.0,
        above_idle_mj=above * supply.volts * duration_ms / 1000.0,
    )


@dataclass(frozen=True, slots=True)
class Duty:
    """What a camera does each `interval_s`: `frames` of `frame_ms` each. Before them it works for `wake_s` when it
    was in deep sleep (starting, connecting, exposure), in which it draws `sleep_ma`; None: it rests awake.
    """

    interval_s: float
    frame_ms: float
    frames: int = 1
    sleep_ma: float | None = None
    wake_s: float = 0.0

    def __post_init__(self) -> None:
        if self.interval_s < 0 or self.frame_ms <= 0 or self.frames < 1 or self.wake_s < 0:
            raise InvalidError("An interval cannot be negative, and a frame takes some time.")

    @property
    def busy_s(self) -> float:
        """Seconds of work in each interval; never more than the interval, unless that is shorter than the work."""
        woken = self.wake_s if self.sleep_ma is not None else 0.0
        return woken + self.frames * self.frame_ms / 1000.0

    @property
    def share(self) -> float:
        """The part of the time that the camera works, 0..1."""
        return 1.0 if self.interval_s <= self.busy_s else self.busy_s / self.interval_s


def mean_ma(duty: Duty, supply: Supply) -> float:
    """The current on average."""
    rest = supply.idle_ma if duty.sleep_ma is None else duty.sleep_ma
    return duty.share * supply.active_ma + (1.0 - duty.share) * rest


def mah_per_day(duty: Duty, supply: Supply) -> float:
    """What a day takes from the battery."""
    return mean_ma(duty, supply) * HOURS_A_DAY


def battery_days(capacity_mah: float, duty: Duty, supply: Supply, *, usable: float = 1.0) -> float:
    """How long a battery lasts. `usable`: the part of what is printed on it that it really gives, 0..1."""
    if capacity_mah <= 0 or not 0 < usable <= 1:
        raise InvalidError("A battery needs a capacity above zero, of which more than nothing is usable.")
    return capacity_mah * usable / mah_per_day(duty, supply)


def frames_per_charge(capacity_mah: float, duty: Duty, supply: Supply, *, usable: float = 1.0) -> float:
    """How many frames one battery is good for."""
    period = max(duty.interval_s, duty.busy_s)
    days = battery_days(capacity_mah, duty, supply, usable=usable)
    return days * HOURS_A_DAY * SECONDS_AN_HOUR / period * duty.frames


def published_rows(figures: PowerFigures, volts: float) -> Sequence[tuple[Measured, Cost, Cost]]:
    """The published sizes, each with what one inference and one whole frame take at this voltage."""
    rows = []
    for one in figures.measured:
        supply = Supply(one.current_ma, figures.idle_ma, volts)
        rows.append((one, cost_of(one.inference_ms, supply), cost_of(one.frame_ms, supply)))
    return rows
