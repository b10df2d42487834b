"""Explanations in words and tables: why a rollout or a camera is where it is, and what happens next."""

from collections.abc import Mapping
from typing import Any

from fleetd.cli.session import Session
from fleetd.cli.text import counted, duration, number, safe, when

Facts = Mapping[str, Any]  # as the API answers them


def print_explanation(session: Session, found: Facts) -> None:
    """One rollout, as GET /rollouts/{id}/explain answers it."""
    rollout, out = found["rollout"], session.out
    out.facts(
        [
            (
                "rollout",
                f"{rollout['id']}: {rollout['release_id']} to {rollout['target']}, {rollout['state']}",
            ),
            ("why", found["why"]),
            ("next", found["next"]),
            ("when", _when(found["at"], session.now())),
            ("limits", limits_line(rollout["settings"])),
            ("pace", pace_line(rollout["settings"])),
            ("rate", rate_line(found)),
        ]
    )
    out.say("")
    print_waves(session, found)
    if found["signals"]:
        out.say("")
        print_signals(session, found)
    dark = found["dark"]
    if dark is not None and dark["running"]:
        out.say("")
        out.say(
            f"silent: {dark['silent']} of {counted(dark['running'], 'camera')} that run it; "
            f"{dark['others_silent']} of {dark['others']} others"
        )
    for one in found["next_tries"]:
        out.say(f"tried again: {safe(one['camera'])} ({safe(one['reason'])}) at {when(one['retry_at'])}")


def print_waves(session: Session, found: Facts) -> None:
    """A line for each wave."""
    session.out.table(
        ("wave", "is", "cameras", "states"),
        ((one["name"], one["state"], one["cameras"], states_line(one["tally"])) for one in found["waves"]),
        empty="It has no waves.",
    )


def print_signals(session: Session, found: Facts) -> None:
    """A line for each signal of model health, the surest first."""
    session.out.table(
        ("signal", "moved", "by", "halts at", "surely", "what"),
        (
            (
                one["signal"],
                "yes" if one["moved"] else "no",
                number(one["size"], 2),
                number(one["limit"], 2),
                f"{min(one['evidence'], 9999):.0f}x",
                one["text"],
            )
            for one in found["signals"]
        ),
        empty="Nothing can be said about the model yet.",
    )


def print_camera(session: Session, found: Facts) -> None:
    """One camera, as GET /cameras/{name}/explain answers it."""
    desired, part, out = found["desired"], found["assignment"], session.out
    asked = None
    if desired is not None:
        sent = "" if desired["sent_generation"] >= desired["generation"] else ", not at the broker yet"
        asked = f"{desired['release_id'] or 'what it has'} (generation {desired['generation']}{sent})"
    runs = found["reported_release"] or "-"
    trial = f", trying {found['trial']}" if found["trial"] else ""
    seen = (
        "never"
        if found["seen_at"] is None
        else f"{when(found['seen_at'])} ({duration(found['silent_s'])} ago)"
    )
    out.facts(
        [
            ("camera", f"{found['camera']}, {found['presence']}"),
            ("why", found["why"]),
            ("next", found["next"]),
            ("should run", asked),
            ("says it runs", f"{runs}{trial} (generation {found['reported_generation'] or '-'})"),
            ("was heard of", seen),
            ("pinned to", found["pinned"]),
            ("rollout", None if part is None else f"{found['rollout']}: {part['state']}"),
            (
                "deadline",
                None if part is None else _when(part["deadline_at"] or part["retry_at"], session.now()),
            ),
        ]
    )
    if found["attempts"]:
        out.say("")
        out.table(
            ("tried", "release", "rollout", "came to", "why"),
            (
                (when(one["at"]), one["release_id"], one["rollout_id"], one["state"], one["reason"])
                for one in found["attempts"]
            ),
            empty="",
        )


def limits_line(settings: Facts) -> str:
    """What halts it, in a line."""
    free = settings["max_failed"] + settings["accepted"]
    health = "and model health" if settings["health"] else "not on model health"
    ignored = f" but {', '.join(map(safe, settings['ignore']))}" if settings["ignore"] else ""
    back = f"; then {safe(settings['way_back'])} goes out" if settings["way_back"] else ""
    return (
        f"halts on more than {free} bad outcomes when surely above {settings['tolerated']:.1%}, "
        f"silence above {settings['tolerated_silence']:.1%}, {health}{ignored}{back}"
    )


def pace_line(settings: Facts) -> str:
    """How it goes on, in a line."""
    said = []
    if settings["start_at"] is not None:
        said.append(f"from {when(settings['start_at'])}")
    if settings["window"]:
        said.append(safe(settings["window"]))
    for name, words in (
        ("at_once", "at a time"),
        ("site_at_once", "at a time at a site"),
        ("site_per_hour", "an hour at a site"),
    ):
        if settings[name] is not None:
            said.append(f"{settings[name]} {words}")
    if settings["soak_s"]:
        said.append(f"each wave watched for {duration(settings['soak_s'])}")
    if settings["retries"]:
        said.append(f"{counted(settings['retries'], 'retry').replace('retrys', 'retries')} a camera")
    if settings["priority"]:
        said.append(f"priority {settings['priority']}")
    return ", ".join(said) or "as fast as cameras take it"


def rate_line(found: Facts) -> str | None:
    """How fast it goes, and how long it still takes."""
    if found["per_minute"] is None:
        return None
    left = "" if found["left_s"] is None else f", about {duration(found['left_s'])} left"
    return f"{found['per_minute']:.1f} cameras a minute{left}"


def states_line(tally: Mapping[str, int]) -> str:
    """`3 confirmed, 1 trial`."""
    return ", ".join(f"{count} {safe(state)}" for state, count in sorted(tally.items()) if count) or "-"


def _when(at: float | None, now: float) -> str | None:
    if at is None:
        return None
    if at <= now:
        return "now"
    return f"{when(at)} (in {duration(at - now)})"
