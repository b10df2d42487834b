"""Writes the next migration from what has changed in `fleetd/store/tables.py`.

    python scripts/new_migration.py "Cameras have a site"

It compares the tables in the code with a fresh database made by the migrations so far. Read what it wrote:
it cannot know about data that has to move.
"""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config

from fleetd.store import migrate
from fleetd.store.engine import SqlStore

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"


def main() -> int:
    """Exit code 0: written; 1: there is nothing to write; 2: no reason given."""
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        print('Say why: python scripts/new_migration.py "Cameras have a site"', file=sys.stderr)
        return 2
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with tempfile.TemporaryDirectory() as folder:
        store = SqlStore(f"sqlite:///{folder}/empty.db")
        try:
            migrate.upgrade(store)
            if not migrate.differences(store):
                print(
                    "The migrations make exactly the tables of the code: nothing to write.", file=sys.stderr
                )
                return 1
            number = f"{int(migrate.newest_revision()) + 1:04d}"
            with store.connect(write=True) as connection:
                config.attributes["connection"] = connection
                command.revision(config, sys.argv[1].strip(), autogenerate=True, rev_id=number)
        finally:
            store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
