"""Bringing a database to this version's schema, in one transaction per start: it is done, or nothing is."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

import migrations
from fleetd.errors import StoreError
from fleetd.store.engine import SqlStore
from fleetd.store.tables import metadata


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str:
    """The revision this version of fleetd expects."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def current_revision(store: SqlStore) -> str | None:
    """The revision the database is at; None for an empty one."""
    with store.connect(write=False) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(store: SqlStore, to: str = "head") -> bool:
    """Brings the database to the newest schema, or to an older one; False when it was at the newest already.

    Raises StoreError when a newer fleetd has been at this database, which is then left as it is.
    """
    if current_revision(store) == newest_revision():
        return False
    config = _config()
    try:
        with store.connect(write=True) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, to)
    except CommandError as error:
        raise StoreError(
            f"The database at {store.url.render_as_string()} belongs to a newer fleetd ({error}). "
            "It was not changed. Start the newer version, or restore a backup made with this one."
        ) from error
    return True


def differences(store: SqlStore) -> list[object]:
    """How the database differs from the tables in the code; empty when migrations are complete."""
    with store.connect(write=False) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))
