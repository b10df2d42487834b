"""What a camera says of its benchmark, what that costs a battery, and how both are shown."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from fleetd.cli import chart
from fleetd.cli.output import Output
from fleetd.cli.text import number, safe
from fleetd.domain import energy

CAMERA_COLORS: Final = ("#1b6ca8", "#7fb7de", "#c9def0")  # inference, capture, the rest
PUBLISHED_COLORS: Final = ("#8a8a8a", "#d0d0d0")  # inference, the rest
_BATTERY: Final = ("battery_days", "battery_days_asleep")
_Number = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class SizeReport(BaseModel):
    """What the camera says about one size: figures, or why there are none."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    size: Annotated[int, Field(ge=1, le=100_000)]
    frames: Annotated[int, Field(ge=0, le=100_000)] = 0
    fps: _Number | None = None
    capture_ms: _Number | None = None
    inference_ms: _Number | None = None
    total_ms: _Number | None = None
    slowest_ms: _Number | None = None
    error: Annotated[str, Field(max_length=2000)] | None = None

    @property
    def frame_ms(self) -> float | None:
        """From one picture to the next, with everything the agent does in between."""
        return 1000.0 / self.fps if self.fps else None


class Report(BaseModel):
    """A camera's reply."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    input: Annotated[list[int], Field(max_length=4)]
    sizes: Annotated[list[SizeReport], Field(min_length=1, max_length=16)]


def estimates(
    report: Report, power: energy.PowerFigures, volts: float, interval_s: float, wake_s: float
) -> list[dict[str, Any]]:
    """By size: energy of an inference and of a whole frame, charge per day awake and with deep sleep."""
    rows: list[dict[str, Any]] = []
    for one in report.sizes:
        if one.frame_ms is None or one.inference_ms is None:
            continue
        supply = energy.Supply(power.active_ma(one.size), power.idle_ma, volts)
        inference = energy.cost_of(one.inference_ms, supply)
        frame = energy.cost_of(one.frame_ms, supply)
        awake = energy.Duty(interval_s, one.frame_ms)
        asleep = None
        if power.sleep_ma is not None:
            duty = energy.Duty(interval_s, one.frame_ms, sleep_ma=power.sleep_ma, wake_s=wake_s)
            asleep = energy.mah_per_day(duty, supply)
        rows.append(
            {
                "size": one.size,
                "active_ma": supply.active_ma,
                "inference_mj": inference.mj,
                "inference_above_idle_mj": inference.above_idle_mj,
                "inference_mah": inference.mah,
                "frame_mj": frame.mj,
                "frame_mah": frame.mah,
                "mah_per_day": energy.mah_per_day(awake, supply),
                "mah_per_day_asleep": asleep,
            }
        )
    return rows


# --- printing ----------------------------------------------------------------------------------------------------


def show(out: Output, known: Any, report: Report) -> None:
    """Prints what was measured beside what was published."""
    rows = []
    for one in report.sizes:
        other = energy.RT1062.at(one.size)
        rows.append(
            (
                f"{one.size}x{one.size}",
                number(one.fps, 2),
                number(one.capture_ms, 2),
                number(one.inference_ms, 2),
                number(one.frame_ms, 2),
                number(other.fps if other else None, 2),
                number(other.inference_ms if other else None, 0),
                _with_unit(other.current_ma if other else None, 0, "mA"),
            )
        )
    out.table(
        (
            *("size", "fps", "capture ms", "inference ms", "frame ms"),
            *("published fps", "published inference ms", "published current"),
        ),
        rows,
        empty="The camera measured nothing.",
    )
    for one in report.sizes:
        if one.error:
            out.warn(f"{one.size}x{one.size}: {safe(one.error)}")
    out.say(f"Published: {energy.RT1062.source}; {energy.RT1062.idle_ma:g} mA at rest.")
    if _is_virtual(known):
        out.say("This is a virtual camera: its times are those of the computer it runs on.")


def show_energy(
    out: Output,
    known: Any,
    power: energy.PowerFigures | None,
    costs: list[dict[str, Any]],
    volts: float,
    interval_s: float,
    wake_s: float,
) -> None:
    """Prints what that costs at these currents, or how to make an estimate possible."""
    if power is None:
        out.say(
            f"Nobody has published what a {safe(known['board'] or 'board of this kind')} draws: "
            "--active-ma and --idle-ma make an estimate."
        )
        return
    out.say("")
    pause = "without a pause" if interval_s == 0 else f"one picture every {interval_s:g} s"
    sleep = "unknown" if power.sleep_ma is None else f"{power.sleep_ma:g}"
    out.say(
        f"Energy at {volts:g} V, {pause}. At rest {power.idle_ma:g} mA; asleep: deep sleep ({sleep} mA), and "
        f"{wake_s:g} s awake before each picture. Currents: "
        f"{'as published' if power == energy.RT1062 else safe(power.source)}."
    )
    with_battery = bool(costs) and "battery_days" in costs[0]
    out.table(
        (
            *("size", "current", "inference", "above idle", "frame", "frame's charge"),
            *("charge a day", "asleep between"),
            *(("battery lasts", "asleep between") if with_battery else ()),
        ),
        [
            (
                f"{one['size']}x{one['size']}",
                _with_unit(one["active_ma"], 0, "mA"),
                _with_unit(one["inference_mj"], 2, "mJ"),
                _with_unit(one["inference_above_idle_mj"], 2, "mJ"),
                _with_unit(one["frame_mj"], 2, "mJ"),
                _with_unit(one["frame_mah"], 5, "mAh"),
                _with_unit(one["mah_per_day"], 1, "mAh"),
                _with_unit(one["mah_per_day_asleep"], 1, "mAh"),
                *(_with_unit(one[name], 2, "d") for name in _BATTERY if with_battery),
            )
            for one in costs
        ],
        empty="No size was measured, so there is nothing to estimate.",
    )


def _with_unit(value: float | None, digits: int, unit: str) -> str:
    """With its unit in the cell, because headings are printed in capitals."""
    return "-" if value is None else f"{number(value, digits)} {unit}"


def facts(
    known: Any,
    report: Report,
    power: energy.PowerFigures | None,
    costs: list[dict[str, Any]],
    volts: float,
    interval_s: float,
) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "camera": known["name"],
        "board": known["board"],
        "release": (known["release"] or {}).get("id"),
        "virtual": _is_virtual(known),
        "input": report.input,
        "sizes": [one.model_dump(exclude_none=True) for one in report.sizes],
        "published": {
            "source": energy.RT1062.source,
            "idle_ma": energy.RT1062.idle_ma,
            "sizes": [
                {"size": m.size, "fps": m.fps, "inference_ms": m.inference_ms, "current_ma": m.current_ma}
                for m in energy.RT1062.measured
            ],
        },
        "energy": None
        if power is None
        else {"volts": volts, "interval_s": interval_s, "source": power.source, "sizes": costs},
    }


def _is_virtual(known: Any) -> bool:
    return (known["network"] or {}).get("kind") == "desk"


def draw(known: Any, report: Report) -> str:
    """The same as a picture (SVG): rates, and what a frame's time consists of."""
    rates, times = [], []
    for one in report.sizes:
        label = f"{one.size} x {one.size}"
        other = energy.RT1062.at(one.size)
        mine = [] if one.fps is None else [(one.fps, CAMERA_COLORS[0])]
        rates.append((label, [mine, [(other.fps, PUBLISHED_COLORS[0])] if other else []]))
        parts = []
        if one.inference_ms is not None and one.capture_ms is not None and one.frame_ms is not None:
            rest = max(0.0, one.frame_ms - one.inference_ms - one.capture_ms)
            parts = list(zip((one.inference_ms, one.capture_ms, rest), CAMERA_COLORS, strict=True))
        published = (
            list(zip((other.inference_ms, other.rest_ms), PUBLISHED_COLORS, strict=True)) if other else []
        )
        times.append((label, [parts, published]))
    name = str(known["name"])
    kind = "virtual camera" if _is_virtual(known) else str(known["board"] or "unknown board")
    return chart.draw(
        f"Classifying on {name}",
        f"{kind}, model {(known['release'] or {}).get('id') or '-'}, beside the published figures of an RT1062",
        [
            chart.Panel(
                "Frame rate",
                "fps",
                [(name, CAMERA_COLORS[0]), ("RT1062, published", PUBLISHED_COLORS[0])],
                rates,
            ),
            chart.Panel(
                "Time of a frame",
                "ms",
                [
                    *zip((f"{name}: inference", "capture", "rest"), CAMERA_COLORS, strict=True),
                    *zip(("RT1062: inference", "capture and rest"), PUBLISHED_COLORS, strict=True),
                ],
                times,
            ),
        ],
    )
