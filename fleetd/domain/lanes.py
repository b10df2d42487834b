"""Who may publish and read what over MQTT: one table, from which both brokers take their rules.

    camera cam-07    publishes cam-07/up/#       reads cam-07/down/#, _release/+, _blob/+/+, _fleetd/status
    a person         publishes nothing           reads everything under the prefix but +/down/desired, and $SYS
    fleetd           publishes what is its own   reads what cameras publish

Whatever is not named here is forbidden. Names that begin with `_` are fleetd's own; a camera cannot have one.
"""

import re
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Final

DAEMON: Final = "_fleetd"  # fleetd's own account

_SHARED = re.compile(r"\$share/[^/+#]+/(.+)", re.DOTALL)


class Part(StrEnum):
    """What an account is for."""

    CAMERA = "camera"
    PERSON = "person"
    DAEMON = "daemon"


# Filters under the prefix; %u is the account's name.
_WRITES: Final = {
    Part.CAMERA: ("%u/up/#",),
    Part.PERSON: (),
    # `+/up/status` only to take a removed camera's last word off the broker.
    Part.DAEMON: ("+/down/#", "_release/+", "_blob/+/+", "_fleetd/+", "+/up/status"),
}
_READS: Final = {
    Part.CAMERA: ("%u/down/#", "_release/+", "_blob/+/+", "_fleetd/status"),
    Part.PERSON: ("#",),
    Part.DAEMON: ("+/up/#",),
}
# What the filters above match and is not delivered all the same: a WiFi's key may stand in it.
_HIDDEN: Final = {Part.CAMERA: (), Part.PERSON: ("+/down/desired",), Part.DAEMON: ()}
_ALSO_READS: Final = {Part.CAMERA: (), Part.PERSON: ("$SYS/#",), Part.DAEMON: ()}  # not under the prefix


def may_publish(part: Part, name: str, topic: str, prefix: str) -> bool:
    """Whether that account may publish on this topic. A topic with wildcards is nobody's."""
    if "+" in topic or "#" in topic:
        return False
    return any(matches(allowed, topic) for allowed in _writes(part, name, prefix))


def may_read(part: Part, name: str, topic: str, prefix: str) -> bool:
    """Whether a message on this topic may be delivered to that account."""
    if any(matches(f"{prefix}/{one}", topic) for one in _HIDDEN[part]):
        return False
    return any(matches(allowed, topic) for allowed in _reads(part, name, prefix))


def may_subscribe(part: Part, name: str, wanted: str, prefix: str) -> bool:
    """Whether everything that this filter could ever match is that account's to read.

    Shared subscriptions are fleetd's only: whoever joins one takes messages away from its other members.
    """
    if shared := _SHARED.fullmatch(wanted):
        if part is not Part.DAEMON:
            return False
        wanted = shared[1]
    return any(covers(allowed, wanted) for allowed in _reads(part, name, prefix))


def acl_file(prefix: str, people: Collection[str]) -> str:
    """The same table in mosquitto's words.

    Its `pattern` lines hold for every account. People and fleetd would gain a lane of their own name by that:
    `deny`, which goes before everything else, takes it away again.
    """
    lines = ["# Written by fleetd; changes here are lost. What is not named is forbidden."]
    lines += [f"pattern write {prefix}/{one}" for one in _WRITES[Part.CAMERA]]
    lines += [f"pattern read {prefix}/{one}" for one in _READS[Part.CAMERA]]
    for part, names in ((Part.DAEMON, [DAEMON]), (Part.PERSON, sorted(people))):
        for name in names:
            lines += ["", f"user {name}", f"topic deny {prefix}/{name}/up/#"]
            lines += [f"topic deny {prefix}/{one}" for one in _HIDDEN[part]]
            lines += [f"topic write {one}" for one in _writes(part, name, prefix)]
            lines += [f"topic read {one}" for one in _reads(part, name, prefix)]
    return "\n".join(lines) + "\n"


def matches(wanted: str, topic: str) -> bool:
    """Whether an MQTT filter matches a topic; one that begins with a wildcard matches no topic that begins with $."""
    if topic.startswith("$") and wanted[:1] in {"+", "#"}:
        return False
    filters, words = wanted.split("/"), topic.split("/")
    for place, one in enumerate(filters):
        if one == "#":
            return place == len(filters) - 1
        if place >= len(words) or one not in ("+", words[place]):
            return False
    return len(filters) == len(words)


def covers(allowed: str, wanted: str) -> bool:
    """Whether every topic that `wanted` matches is matched by `allowed`. Both are MQTT filters."""
    if allowed[:1] in {"+", "#"} and wanted.startswith("$"):
        return False
    have, ask = allowed.split("/"), wanted.split("/")
    for place, one in enumerate(have):
        if one == "#":
            return place == len(have) - 1
        if place >= len(ask) or ask[place] == "#" or one not in ("+", ask[place]):
            return False
    return len(have) == len(ask)


def _writes(part: Part, name: str, prefix: str) -> Iterator[str]:
    return (f"{prefix}/{one}".replace("%u", name) for one in _WRITES[part])


def _reads(part: Part, name: str, prefix: str) -> Iterator[str]:
    yield from (f"{prefix}/{one}".replace("%u", name) for one in _READS[part])
    yield from _ALSO_READS[part]
