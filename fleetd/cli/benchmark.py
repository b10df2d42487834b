"""`fleetctl benchmark`: how fast a camera classifies pictures of several sizes, and what that costs a battery."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from fleetd.cli.benchmark_report import Report, draw, estimates, facts, show, show_energy
from fleetd.cli.commands import outcome_of
from fleetd.cli.errors import ERROR, UNUSABLE, CliError
from fleetd.cli.session import Json, Session, session_of
from fleetd.cli.text import safe
from fleetd.domain import energy

SIZES: Final = "240,320,640,1024"
SIZE_SECONDS: Final = 80  # that the camera spends on one size at most
GRACE_SECONDS: Final = 60

_REASONS: Final = {
    "no-model": "It has no model yet: push one first.",
    "busy": "An update or another benchmark is under way: wait for its end.",
    "interrupted": "An update came in between: try again after it.",
    "bad-arguments": "At most 8 sizes from 32 to 1600 pixels, and at most 200 frames.",
    "expired": "It came later than its time to live allows: try again.",
    "unknown-command": "Its agent is too old for that: update it.",
}


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
    power = _power(known, active_ma, idle_ma, sleep_ma)
    if power is not None:
        for size in wanted:
            energy.Supply(power.active_ma(size), power.idle_ma, volts)  # refuses what cannot be
    if plot is not None and (plot.is_dir() or not plot.parent.is_dir()):
        raise CliError(f"{safe(plot)} cannot be written: no such folder.", "Name another file.")
    if not as_json:
        session.out.warn(f"{safe(camera)} measures {len(wanted)} sizes; that takes up to a minute each.")
    report = _measure(session, camera, {"sizes": wanted, "frames": frames})
    costs = [] if power is None else estimates(report, power, volts, interval_s, wake_s)
    if battery_mah is not None:
        for one in costs:
            one["battery_days"] = battery_mah * usable / one["mah_per_day"]
            asleep = one["mah_per_day_asleep"]
            one["battery_days_asleep"] = None if asleep is None else battery_mah * usable / asleep
    if plot is not None:
        _write(plot, draw(known, report))
    if as_json:
        session.out.json(facts(known, report, power, costs, volts, interval_s))
        return
    show(session.out, known, report)
    show_energy(session.out, known, power, costs, volts, interval_s, wake_s)
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
    if known["presence"] in {"offline", "new", "asleep"}:
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


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(
            f"{safe(path)} cannot be written: {safe(error.strerror or error)}.", "Name another file."
        ) from error
