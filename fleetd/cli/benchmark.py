"""`fleetctl benchmark`: how fast a camera classifies pictures of several sizes, and what that costs a battery."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleetd.cli import chart
from fleetd.cli.commands import outcome_of
from fleetd.cli.errors import ERROR, UNUSABLE, CliError
from fleetd.cli.session import Json, Session, session_of
from fleetd.cli.text import number, safe
from fleetd.domain import energy

SIZES: Final = "240,320,640,1024"
SIZE_SECONDS: Final = 80  # that the camera spends on one size at most
GRACE_SECONDS: Final = 60
CAMERA_COLORS: Final = ("#1b6ca8", "#7fb7de", "#c9def0")  # inference, capture, the rest
PUBLISHED_COLORS: Final = ("#8a8a8a", "#d0d0d0")  # inference, the rest

_REASONS: Final = {
    "no-model": "It has no model yet: push one first.",
    "busy": "An update or another benchmark is under way: wait for its end.",
    "interrupted": "An update came in between: try again after it.",
    "bad-arguments": "At most 8 sizes from 32 to 1600 pixels, and at most 200 frames.",
    "expired": "It came later than its time to live allows: try again.",
    "unknown-command": "Its agent is too old for that: update it.",
}

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


def benchmark(
    ctx: typer.Context,
    camera: Annotated[str, typer.Argument(metavar="CAMERA", help="The camera's name.")],
    sizes: Annotated[
        str, typer.Option(help="Edges of the square pictures in pixels, with commas between.")
    ] = SIZES,
    frames: Annotated[int, typer.Option(min=1, max=200, help="Pictures of each size.")] = 20,
    interval_s: Annotated[
        float, typer.Option(min=0, help="For the estimate: seconds from picture to picture; 0: no pause.")
    ] = 60.0,
    battery_mah: Annotated[
        float | None, typer.Option(min=1, help="For the estimate: the battery's capacity.")
    ] = None,
    usable: Annotated[
        float, typer.Option(min=0.05, max=1, help="The part of the capacity that the battery really gives.")
    ] = 1.0,
    volts: Annotated[float, typer.Option(min=1, max=60, help="The supply's voltage.")] = 5.0,
    active_ma: Annotated[
        float | None, typer.Option(min=0.001, help="Your own measurement: current while classifying.")
    ] = None,
    idle_ma: Annotated[
        float | None, typer.Option(min=0.001, help="Your own measurement: current with nothing to do.")
    ] = None,
    sleep_ma: Annotated[
        float | None, typer.Option(min=0, help="Your own measurement: current in deep sleep.")
    ] = None,
    wake_s: Annotated[
        float, typer.Option(min=0, help="Seconds from deep sleep to the first picture.")
    ] = 10.0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw it, too.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a camera's frame rate, capture and inference time, and estimate what a battery makes of it.

    The camera keeps its connection meanwhile, but sends no results. Currents are those published for its board,
    unless you give your own.
    """
    session = session_of(ctx)
    wanted = _sizes(sizes)
    known = session.api.get("cameras", camera)
    _refuse_early(known)
    if not as_json:
        session.out.warn(f"{safe(camera)} measures {len(wanted)} sizes; that takes up to a minute each.")
    report = _measure(session, camera, {"sizes": wanted, "frames": frames})
    power = _power(known, active_ma, idle_ma, sleep_ma)
    estimates = [] if power is None else _estimates(report, power, volts, interval_s, wake_s)
    if battery_mah is not None:
        for one in estimates:
            one["battery_days"] = battery_mah * usable / one["mah_per_day"]
            asleep = one["mah_per_day_asleep"]
            one["battery_days_asleep"] = None if asleep is None else battery_mah * usable / asleep
    if plot is not None:
        _write(plot, _draw(known, report))
    if as_json:
        session.out.json(_facts(known, report, power, estimates, volts, interval_s))
        return
    _show(session, known, report)
    _show_energy(session, known, power, estimates, volts, interval_s, wake_s)
    if plot is not None:
        session.out.warn(f"Drawn: {safe(plot)}.")


# --- asking the camera ----------------------------------------------------------------------------------------


def _sizes(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not 0 < len(found) <= 8 or not all(32 <= size <= 1600 for size in found):
        raise CliError(
            f"{safe(text)!r} are no sizes.",
            f"Write up to 8 edges from 32 to 1600 pixels, e.g. {SIZES}.",
            exit_code=UNUSABLE,
        )
    return found


def _refuse_early(known: Any) -> None:
    """Before anybody waits for an answer that cannot come."""
    name = safe(known["name"])
    if known["presence"] in {"offline", "new"}:
        raise CliError(
            f"{name} is {known['presence']}; nothing was sent.",
            f"`fleetctl cameras show {name}` says when it was last seen.",
        )
    if "benchmark" not in known["capabilities"]:
        raise CliError(
            f"The agent on {name} ({safe(known['agent'] or 'unknown')}) knows no benchmark.", "Update it."
        )


def _measure(session: Session, camera: str, args: dict[str, Any]) -> Report:
    ttl = GRACE_SECONDS + SIZE_SECONDS * len(args["sizes"])
    body = {"args": args, "ttl_s": ttl}
    sent = session.api.post("cameras", camera, "commands", "benchmark", body=body)
    outcome = outcome_of(session, sent["id"])
    if outcome["state"] == "failed":
        reason = str(outcome["reason"] or "no reason given")
        raise CliError(
            f"{camera} did not measure: {safe(reason)}.",
            _REASONS.get(reason, f"`fleetctl events --camera {camera}` may say more."),
            exit_code=ERROR,
        )
    if outcome["state"] != "done":
        raise CliError(
            f"{camera} did not answer within {ttl} s.",
            f"`fleetctl cameras show {camera}` says when it was last seen; it may have restarted.",
        )
    try:
        return Report.model_validate(outcome["data"])
    except ValidationError as error:
        raise CliError(
            f"{camera} answered, but not with a benchmark ({error.error_count()} things are wrong with it).",
            "Agent and fleetctl may be of different versions.",
        ) from error


# --- what it costs ----------------------------------------------------------------------------------------------


def _power(
    known: Any, active_ma: float | None, idle_ma: float | None, sleep_ma: float | None
) -> energy.PowerFigures | None:
    """Published figures of this board, with the operator's own in their place. None: there are neither."""
    found = energy.figures_for(known["board"])
    if active_ma is None and idle_ma is None and sleep_ma is None:
        return found
    if found is None and (active_ma is None or idle_ma is None):
        raise CliError(
            "Nobody has published this board's currents.",
            "Give both --active-ma and --idle-ma.",
            exit_code=UNUSABLE,
        )
    return energy.with_own(
        found, board=known["board"] or "", active_ma=active_ma, idle_ma=idle_ma, sleep_ma=sleep_ma
    )


def _estimates(
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


def _show(session: Session, known: Any, report: Report) -> None:
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
                number(other.current_ma if other else None, 0),
            )
        )
    session.out.table(
        ("size", "fps", "capture ms", "inference ms", "frame ms", "rt1062 fps", "inference ms", "mA"),
        rows,
        empty="The camera measured nothing.",
    )
    for one in report.sizes:
        if one.error:
            session.out.warn(f"{one.size}x{one.size}: {safe(one.error)}")
    session.out.say(f"RT1062 columns: {energy.RT1062.source}; {energy.RT1062.idle_ma:g} mA at rest.")
    if _is_virtual(known):
        session.out.say("This is a virtual camera: its times are those of the computer it runs on.")


def _show_energy(
    session: Session,
    known: Any,
    power: energy.PowerFigures | None,
    estimates: list[dict[str, Any]],
    volts: float,
    interval_s: float,
    wake_s: float,
) -> None:
    if power is None:
        session.out.say(
            f"Nobody has published what a {safe(known['board'] or 'board of this kind')} draws: "
            "--active-ma and --idle-ma make an estimate."
        )
        return
    session.out.say("")
    pause = "without a pause" if interval_s == 0 else f"one picture every {interval_s:g} s"
    sleep = "unknown" if power.sleep_ma is None else f"{power.sleep_ma:g}"
    session.out.say(
        f"Energy at {volts:g} V, {pause}. At rest {power.idle_ma:g} mA; asleep: deep sleep ({sleep} mA), and "
        f"{wake_s:g} s awake before each picture. Currents: {safe(power.source)}."
    )
    with_battery = bool(estimates) and "battery_days" in estimates[0]
    session.out.table(
        (
            *(
                "size",
                "mA",
                "mJ/inference",
                "above idle",
                "mJ/frame",
                "uAh/frame",
                "mAh/day",
                "mAh/day asleep",
            ),
            *(("battery days", "days asleep") if with_battery else ()),
        ),
        [
            (
                f"{one['size']}x{one['size']}",
                number(one["active_ma"], 0),
                number(one["inference_mj"], 2),
                number(one["inference_above_idle_mj"], 2),
                number(one["frame_mj"], 2),
                number(1000 * one["frame_mah"], 3),
                number(one["mah_per_day"], 1),
                number(one["mah_per_day_asleep"], 1),
                *(
                    (number(one["battery_days"], 2), number(one["battery_days_asleep"], 2))
                    if with_battery
                    else ()
                ),
            )
            for one in estimates
        ],
        empty="No size was measured, so there is nothing to estimate.",
    )


def _facts(
    known: Any,
    report: Report,
    power: energy.PowerFigures | None,
    estimates: list[dict[str, Any]],
    volts: float,
    interval_s: float,
) -> dict[str, Any]:
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
        else {"volts": volts, "interval_s": interval_s, "source": power.source, "sizes": estimates},
    }


def _is_virtual(known: Any) -> bool:
    return (known["network"] or {}).get("kind") == "desk"


def _draw(known: Any, report: Report) -> str:
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


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(
            f"{safe(path)} cannot be written: {safe(error.strerror or error)}.", "Name another file."
        ) from error
