"""How calmly a push goes: waves, watching, limits and hours, as options of `push-model`.

Without a word about it a push is calm: fewer than four cameras get it at once; more get it after one of them has run it
for ten minutes; twenty or more in waves of one camera, 5, 25 and 100 %, a hundred or more with one of 50 % between.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.text import safe, span

FEW: Final = 4
MANY: Final = 20
A_LOT: Final = 100
CALM_SOAK_S: Final = 600.0

_PACE = "Pace"
_HALT = "When it stops by itself"

Waves = Annotated[
    str | None,
    typer.Option(
        metavar="PERCENTS", rich_help_panel=_PACE, help="Cumulative shares, e.g. 5,25,100; 100: all at once."
    ),
]
Canaries = Annotated[
    int | None, typer.Option(min=0, rich_help_panel=_PACE, help="So many cameras first, before the shares.")
]
Soak = Annotated[
    str | None,
    typer.Option(metavar="SPAN", rich_help_panel=_PACE, help="Watch each wave so long, e.g. 10m, 2h, 0."),
]
StartIn = Annotated[
    str | None, typer.Option(metavar="SPAN", rich_help_panel=_PACE, help="Offer nothing before, e.g. 2h.")
]
Hours = Annotated[
    str | None,
    typer.Option(
        "--window", metavar="HOURS", rich_help_panel=_PACE, help='E.g. "mon-fri 22:00-05:00 Europe/Berlin".'
    ),
]
AtOnce = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=_PACE, help="At most so many cameras at a time.")
]
SiteAtOnce = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=_PACE, help="The same for each site, over all rollouts.")
]
SitePerHour = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=_PACE, help="At most so many offers an hour at a site.")
]
Retries = Annotated[
    int | None,
    typer.Option(
        min=0, max=20, rich_help_panel=_PACE, help="Try failures again that may go away; usually 2."
    ),
]
Priority = Annotated[
    int | None,
    typer.Option(
        min=-100, max=100, rich_help_panel=_PACE, help="Takes no camera from a higher one; usually 0."
    ),
]
MaxFailed = Annotated[
    int | None,
    typer.Option(min=0, rich_help_panel=_HALT, help="So many bad outcomes never halt it; usually 1."),
]
Tolerated = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=100.0,
        metavar="PERCENT",
        rich_help_panel=_HALT,
        help="Tolerated bad outcomes; usually 1.",
    ),
]
NoHealth = Annotated[
    bool, typer.Option("--no-health", rich_help_panel=_HALT, help="Do not look at what the model does.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(metavar="SIGNAL", rich_help_panel=_HALT, help="Halt on all signals but this; repeatable."),
]
WayBack = Annotated[
    bool,
    typer.Option(
        "--way-back",
        rich_help_panel=_HALT,
        help="On a halt go back by itself: signs what most cameras run now once more.",
    ),
]


@dataclass(frozen=True, slots=True)
class Wish:
    """The options as they were given."""

    waves: str | None = None
    canaries: int | None = None
    soak: str | None = None
    start_in: str | None = None
    window: str | None = None
    at_once: int | None = None
    site_at_once: int | None = None
    site_per_hour: int | None = None
    retries: int | None = None
    priority: int | None = None
    max_failed: int | None = None
    tolerated: float | None = None
    no_health: bool = False
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """What a rollout is started with. `settings` are the API's."""

    waves: tuple[int, ...]
    canaries: int
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        from fleetd.domain.rollout import steps  # noqa: PLC0415  # help needs none of it

        soak = self.settings.get("soak_s", 0)
        watched = f", each watched for {soak / 60:g} min" if soak else ""
        return ", ".join(steps(self.waves, self.canaries)) + watched


def pace_of(wish: Wish, cameras: int, now: float) -> Pace:
    """The pace for so many cameras; CliError or InvalidError when an option makes no sense."""
    from fleetd.domain.records import RolloutSettings  # noqa: PLC0415  # see above
    from fleetd.domain.rollout import check_settings  # noqa: PLC0415

    calm = wish.waves is None and wish.canaries is None
    waves, canaries, soak_s = _shares(wish.waves or "100"), wish.canaries or 0, 0.0
    if calm and cameras >= FEW:
        shares = (5, 25, 50, 100) if cameras >= A_LOT else (5, 25, 100) if cameras >= MANY else (100,)
        waves, canaries, soak_s = shares, 1, CALM_SOAK_S
    settings: dict[str, Any] = {
        "soak_s": soak_s if wish.soak is None else _seconds(wish.soak),
        "retries": 2 if wish.retries is None else wish.retries,
        "health": not wish.no_health,
        "ignore": list(wish.ignore),
        "window": wish.window,
        "at_once": wish.at_once,
        "site_at_once": wish.site_at_once,
        "site_per_hour": wish.site_per_hour,
        "priority": wish.priority,
        "max_failed": wish.max_failed,
        "tolerated": None if wish.tolerated is None else wish.tolerated / 100,
        "start_at": None if wish.start_in is None else now + _seconds(wish.start_in),
    }
    given = {name: value for name, value in settings.items() if value is not None}
    # With the server's own rules: after the upload would be too late.
    check_settings(RolloutSettings(**{**given, "ignore": wish.ignore, "canaries": canaries}))
    return Pace(waves, canaries, given)


def _shares(text: str) -> tuple[int, ...]:
    """`5,25,100` as numbers; the rules are those of rollouts."""
    from fleetd.domain.rollout import check_waves  # noqa: PLC0415  # see above

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise CliError(
            f"{safe(text)!r} are no waves.",
            "Write percentages with commas: --waves 5,25,100",
            exit_code=UNUSABLE,
        ) from None
    return check_waves(numbers)


def _seconds(text: str) -> float:
    """`10m` in seconds; 0 needs no unit."""
    return 0.0 if text.strip() == "0" else span(text)
