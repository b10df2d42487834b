"""`fleetctl status`: how fleetd is doing."""

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from fleetd.cli.session import Json, session_of


def status(ctx: typer.Context, as_json: Json = False) -> None:
    """Show how fleetd is doing: broker, backlog, counts."""
    session = session_of(ctx)
    found = session.api.get("status")
    if as_json:
        session.out.json(found)
        return
    session.out.facts([("fleetd", session.api.server.url), *_flat(found)])


def _flat(found: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """Nested facts as dotted names."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, list):
            yield f"{above}{name}", "; ".join(map(str, value)) or None
        else:
            yield f"{above}{name}", value
