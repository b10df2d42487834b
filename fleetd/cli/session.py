"""What one run of fleetctl works with. Made once by the root command; tests make their own."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetd.cli.output import Output
from fleetd.cli.server import Server, find_server

if TYPE_CHECKING:  # httpx takes a while to load, and help needs none of it
    import httpx

    from fleetd.cli.api import Api

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")]


@dataclass(slots=True)
class Session:
    """Where to ask, how to print, what time it is."""

    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    folder: Path = field(default_factory=Path.cwd)
    transport: "httpx.BaseTransport | None" = None
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    out: Output = field(default_factory=Output)
    url: str | None = None
    token_file: Path | None = None
    _api: "Api | None" = None

    @property
    def api(self) -> "Api":
        """The connection to fleetd, made when first used."""
        if self._api is None:
            self._api = self.connect(
                find_server(url=self.url, token_file=self.token_file, env=self.env, folder=self.folder)
            )
        return self._api

    def connect(self, server: Server) -> "Api":
        """A connection to that server."""
        from fleetd.cli.api import Api  # noqa: PLC0415  # see above

        if server.warning:
            self.out.warn(server.warning)
        return Api(server, self.transport)

    def close(self) -> None:
        """Closes what was opened."""
        if self._api is not None:
            self._api.close()


def session_of(ctx: typer.Context) -> Session:
    """The session of this run."""
    found = ctx.find_object(Session)
    if found is None:
        raise RuntimeError("fleetctl was started without its root command")
    return found
