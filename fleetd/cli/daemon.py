"""`fleetd`: the daemon's own commands. Everything an operator does is in `fleetctl`."""

import contextlib
import faulthandler
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from fleetd import __version__
from fleetd.cli import authority, sitecheck, siteinit
from fleetd.cli.text import counted
from fleetd.errors import FleetError, SettingsError
from fleetd.settings import Settings, load_settings, names

app = typer.Typer(
    name="fleetd",
    help="Fleet management for OpenMV cameras: the service. Operators use `fleetctl`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(authority.app, name="ca")
app.add_typer(siteinit.app, name="broker")
siteinit.app.command("check")(sitecheck.check_command)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file; `fleetd.toml` here when there is one.")
]
EXIT_SETTINGS = 2
_PASSWORD = re.compile(r"(://[^:@/]*:).*@")  # in a database URL


@app.command()
def serve(
    config: Config = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=64, help="Processes that store messages; see landing.workers.")
    ] = None,
) -> None:
    """Runs the service until SIGTERM or Ctrl-C. Without any settings it is a trial on this machine."""
    settings = _settings(config)
    if workers is not None:
        settings = settings.model_copy(
            update={"landing": settings.landing.model_copy(update={"workers": workers})}
        )
    # Neither `--help` nor a wrong setting shall load a database and two brokers first.
    from fleetd.app import run  # noqa: PLC0415

    stopping = threading.Event()
    _stop_on_signal(stopping)
    _reload_on_signal(config)
    run(settings, stopping, config)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself after the second model.")] = False,
    cameras: Annotated[int, typer.Option(min=1, max=50, help="How many virtual cameras.")] = 5,
) -> None:
    """Shows the main job: virtual cameras classify, and get a second model over the air."""
    from fleetd.cli.demo import run_demo  # noqa: PLC0415  # the same

    stopping = threading.Event()
    _stop_on_signal(stopping)
    raise typer.Exit(run_demo(cameras=cameras, once=once, stopping=stopping))


@app.command()
def ingest(
    name: Annotated[
        str | None,
        typer.Option(help="Part of its MQTT client id; by default the host's name. Each needs another one."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", hidden=True, help="End when standard input ends.")
    ] = False,
    config: Config = None,
) -> None:
    """Only stores messages, beside `fleetd serve`: as many of these as you like share the work."""
    settings = _settings(config)
    from fleetd.app import landing_beside  # noqa: PLC0415
    from fleetd.worker import run  # noqa: PLC0415

    stopping = threading.Event()
    _stop_on_signal(stopping)
    _reload_on_signal(config)
    if follow:
        threading.Thread(target=_stop_with_input, args=[stopping], daemon=True).start()
    with landing_beside(settings.state_dir):
        run(settings, name, stopping)


@app.command(name="migrate")
def migrate_command(config: Config = None) -> None:
    """Brings the database to this version's schema. `fleetd serve` does it by itself at every start."""
    from fleetd.store import migrate  # noqa: PLC0415
    from fleetd.store.engine import SqlStore  # noqa: PLC0415

    settings = _settings(config)
    store = SqlStore(settings.database_url)
    changed = migrate.upgrade(store)
    store.close()
    typer.echo(f"The database is at revision {migrate.newest_revision()}{'' if changed else ' already'}.")


@app.command()
def doctor(config: Config = None) -> None:
    """Looks at everything and says what to do: one page. Exit code 1 when something is bad."""
    from fleetd.doctor import examine, report  # noqa: PLC0415

    if not report(examine(_settings(config)), typer.echo):
        raise typer.Exit(1)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it: a folder's new file.")],
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the file when it exists.")] = False,
    config: Config = None,
) -> None:
    """Writes the whole database into one file, while fleetd runs. Nothing that was acknowledged is missing."""
    from fleetd.store import backup as backups  # noqa: PLC0415
    from fleetd.store.engine import SqlStore  # noqa: PLC0415

    store = SqlStore(_settings(config).database_url)
    try:
        made = backups.back_up(store, file, replace=replace)
    finally:
        store.close()
    typer.echo(
        f"{file}: {counted(made.cameras, 'camera')}, {counted(made.results, 'result')}, {made.size / 1e6:.1f} MB."
    )


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `fleetd backup` wrote, from either database.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what the database holds now; that is lost.")
    ] = False,
    config: Config = None,
) -> None:
    """Brings a backup into the database of the settings. Nothing of fleetd may be running, on any machine."""
    from fleetd.app import landing_beside, make_private, only_one  # noqa: PLC0415
    from fleetd.store import backup as backups  # noqa: PLC0415
    from fleetd.store.engine import SqlStore  # noqa: PLC0415

    settings = _settings(config)
    make_private(settings.state_dir)
    with only_one(settings.state_dir), landing_beside(settings.state_dir, alone=True):
        store = SqlStore(settings.database_url)
        try:
            back = backups.restore(file, store, replace=replace)
        finally:
            store.close()
    typer.echo(
        f"Restored {counted(back.cameras, 'camera')} and {counted(back.results, 'result')}. Start fleetd again."
    )


@app.command(name="settings")
def settings_command(config: Config = None) -> None:
    """Prints what is in force, secrets hidden. docs/settings.md explains each."""
    settings = _settings(config)
    for environment, dotted in names(Settings):
        value: object = settings
        for part in dotted.split("."):
            value = getattr(value, part)
        if dotted == "database":
            value = _PASSWORD.sub(r"\1***@", settings.database)
        typer.echo(f"{dotted} = {value}    ({environment})")


@app.command()
def version() -> None:
    """Prints the version."""
    typer.echo(__version__)


def _reload_on_signal(config: Path | None) -> None:
    """SIGHUP takes over what may change while fleetd runs: how and what is logged. The rest needs a new start."""

    def handle(_number: int, _frame: object) -> None:
        try:
            _settings(config)
        except SettingsError as error:
            print(f"fleetd: {error} The settings in force stay.", file=sys.stderr)  # noqa: T201

    signal.signal(signal.SIGHUP, handle)


def _stop_with_input(stopping: threading.Event) -> None:
    """Standard input ends when the process that holds its other end does."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdin.read(1)
    stopping.set()


def _settings(config: Path | None) -> Settings:
    from fleetd import logs  # noqa: PLC0415

    settings = load_settings(config)
    logs.configure(level=settings.log.level, style=settings.log.style)
    return settings


def _stop_on_signal(stopping: threading.Event) -> None:
    """SIGTERM and Ctrl-C end in order; a second one ends at once."""

    def handle(number: int, _frame: object) -> None:
        if stopping.is_set():
            raise SystemExit(128 + number)
        stopping.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, handle)
    with contextlib.suppress(AttributeError, ValueError):  # where threads hang: kill -USR1
        faulthandler.register(signal.SIGUSR1, all_threads=True)


def main() -> None:
    """Entry point: errors of ours are one sentence, never a traceback."""
    try:
        code = app(standalone_mode=False)  # answers an exit code where a command ended with one
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except SettingsError as error:
        _fail(error, EXIT_SETTINGS)
    except FleetError as error:
        _fail(error, 1)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        shown = getattr(error, "show", None)  # a usage error of the command line
        if shown is None:
            raise
        shown()
        sys.exit(EXIT_SETTINGS)


def _fail(error: FleetError, code: int) -> None:
    print(f"fleetd: {error}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


if __name__ == "__main__":
    main()
