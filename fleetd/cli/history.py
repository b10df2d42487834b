"""`fleetctl results`, `telemetry`, `events`, `leds`, `led report`, `led history`, `dead-letters`: what cameras said."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

from fleetd.cli.session import Json, Limit, Session, session_of
from fleetd.cli.text import as_json_line, moment, number, safe, size, when

FOLLOW_SECONDS: Final = 1.0
FOLLOW_OVERLAP_SECONDS: Final = 60.0  # looked at again, for results that land late
FOLLOW_ROWS: Final = 1000

Camera = Annotated[str | None, typer.Option("--camera", "-c", help="Only this camera.")]
Since = Annotated[
    str | None, typer.Option(help="Only newer: how long ago (90s, 15m, 2h, 7d) or Unix seconds.")
]
Until = Annotated[str | None, typer.Option(help="Only older, written like --since.")]

led_app = typer.Typer(no_args_is_help=True, help="Status LEDs: note what you see, look back.")

_RESULT_HEADINGS: Final = ("at", "camera", "label", "score", "inference", "release")


def _result_row(row: dict[str, Any]) -> Sequence[object]:
    inference = "-" if row["inference_ms"] is None else f"{row['inference_ms']:.0f} ms"
    return (
        when(row["at"]),
        row["camera"],
        row["label"],
        f"{row['score']:.2f}",
        inference,
        row["release_id"],
    )


def results(
    ctx: typer.Context,
    camera: Camera = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="Only this label.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    summary: Annotated[bool, typer.Option("--summary", help="Count labels per camera and release.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing new ones.")] = False,
    as_json: Json = False,
) -> None:
    """Show classifications, newest first."""
    session = session_of(ctx)
    now = session.now()
    if summary:
        found = session.api.get("results", "summary", camera=camera, since=moment(since, now))
        _show(
            session,
            found,
            ("camera", "release", "label", "count", "mean score"),
            lambda row: (
                row["camera"],
                row["release_id"],
                row["label"],
                row["count"],
                number(row["mean_score"], 2),
            ),
            empty="No results in that time (the last 24 hours unless --since says otherwise).",
            as_json=as_json,
        )
        return
    if follow:
        _follow(session, camera, label, moment(since, now), as_json=as_json)
        return
    found = session.api.get(
        "results",
        camera=camera,
        label=label,
        since=moment(since, now),
        until=moment(until, now),
        limit=limit,
    )
    _show(session, found, _RESULT_HEADINGS, _result_row, empty="No results.", as_json=as_json)


def telemetry(
    ctx: typer.Context,
    camera: Camera = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show how cameras were doing, newest first."""
    session = session_of(ctx)
    found = _window(session, "telemetry", camera, since, until, limit)
    _show(
        session,
        found,
        ("at", "camera", "fps", "inference", "heap free", "storage free", "rssi", "temp", "queue", "dropped"),
        lambda row: (
            when(row["at"]),
            row["camera"],
            number(row["fps"]),
            "-" if row["inference_ms"] is None else f"{row['inference_ms']:.0f} ms",
            size(row["heap_free"]),
            size(row["storage_free"]),
            number(row["rssi"], 0),
            number(row["temperature_c"]),
            row["queue"],
            sum((row["dropped"] or {}).values()),
        ),
        empty="No telemetry.",
        as_json=as_json,
    )


def events(
    ctx: typer.Context,
    camera: Camera = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show boots, exceptions and other events, newest first."""
    session = session_of(ctx)
    found = _window(session, "events", camera, since, until, limit)
    _show(
        session,
        found,
        ("at", "camera", "kind", "text"),
        lambda row: (when(row["at"]), row["camera"], row["kind"], row["text"]),
        empty="No events.",
        as_json=as_json,
    )


def leds(
    ctx: typer.Context, camera: Camera = None, since: Since = None, limit: Limit = 50, as_json: Json = False
) -> None:
    """Show what LEDs were seen doing, newest first."""
    session = session_of(ctx)
    path = ("cameras", camera, "leds") if camera else ("leds",)
    found = session.api.get(*path, since=moment(since, session.now()), limit=limit)
    _show(
        session,
        found,
        ("at", "camera", "color", "pattern", "source", "reason"),
        lambda row: (
            when(row["at"]),
            row["camera"],
            row["color"],
            row["pattern"],
            row["source"],
            row["reason"],
        ),
        empty="No sightings.",
        as_json=as_json,
    )


@led_app.command("history")
def led_history(
    ctx: typer.Context,
    camera: Annotated[str, typer.Argument(help="The camera's name.")],
    since: Since = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show what one camera's LED was seen doing, newest first."""
    leds(ctx, camera, since, limit, as_json)


@led_app.command("report")
def report(
    ctx: typer.Context,
    camera: Annotated[str, typer.Argument(help="The camera's name.")],
    color: Annotated[
        str, typer.Argument(help="off, red, green, blue, cyan, magenta, yellow, white or unknown.")
    ],
    pattern: Annotated[
        str, typer.Option(help="solid, blink, blink-fast, double-blink, cycle, off or unknown.")
    ] = "solid",
    reason: Annotated[str | None, typer.Option(help="What happened just before.")] = None,
) -> None:
    """Note what you see a camera's LED do."""
    session = session_of(ctx)
    session.api.post("cameras", camera, "leds", body={"color": color, "pattern": pattern, "reason": reason})
    session.out.say(f"Noted: {safe(camera)} shows {safe(color)} {safe(pattern)}.")


def dead_letters(ctx: typer.Context, limit: Limit = 50, as_json: Json = False) -> None:
    """Show messages that could not be stored as what they claim to be."""
    session = session_of(ctx)
    found = session.api.get("dead-letters", limit=limit)
    _show(
        session,
        found,
        ("received", "topic", "reason", "size", "detail", "begins with"),
        lambda row: (
            when(row["received_at"]),
            row["topic"],
            row["reason"],
            size(row["size"]),
            row["detail"],
            row["text"][:60],
        ),
        empty="Every message could be stored.",
        as_json=as_json,
    )


def _window(
    session: Session, noun: str, camera: str | None, since: str | None, until: str | None, limit: int
) -> Any:
    now = session.now()
    return session.api.get(
        noun, camera=camera, since=moment(since, now), until=moment(until, now), limit=limit
    )


def _show(
    session: Session,
    found: list[dict[str, Any]],
    headings: Sequence[str],
    row: Callable[[dict[str, Any]], Sequence[object]],
    *,
    empty: str,
    as_json: bool,
) -> None:
    if as_json:
        session.out.json(found)
    else:
        session.out.table(headings, (row(item) for item in found), empty=empty)


def _follow(
    session: Session, camera: str | None, label: str | None, since: float | None, *, as_json: bool
) -> None:
    """Prints results as they land, oldest first, until interrupted. With JSON: one object a line."""
    since = session.now() if since is None else since
    seen: set[tuple[object, ...]] = set()
    while True:
        found = session.api.get("results", camera=camera, label=label, since=since, limit=FOLLOW_ROWS)
        now_seen = {_identity(row) for row in found}
        if len(found) == FOLLOW_ROWS and seen.isdisjoint(now_seen):
            session.out.warn("More results than can be followed; some are left out. Narrow it with --camera.")
        for row in reversed(found):
            if _identity(row) not in seen:
                session.out.say(as_json_line(row) if as_json else _result_line(row))
        if found:  # results may land late: the window moves with what was seen, not with the clock
            since = max(since, found[0]["at"] - FOLLOW_OVERLAP_SECONDS)
            seen = now_seen
        session.sleep(FOLLOW_SECONDS)


def _identity(row: dict[str, Any]) -> tuple[object, ...]:
    return row["camera"], row["boot"], row["seq"], row["n"]


def _result_line(row: dict[str, Any]) -> str:
    return "  ".join("-" if cell is None else safe(cell) for cell in _result_row(row))
