"""Opening a database: what is made, who may read it, and what is said when it cannot be."""

from pathlib import Path

import pytest

from fleetd.errors import SettingsError, StoreError
from fleetd.store import migrate
from fleetd.store.engine import SqlStore


def test_a_new_database_can_be_read_by_its_owner_only_wherever_it_lies(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/deep/fleet.db")
    migrate.upgrade(store)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "deep").iterdir()}
    store.close()
    assert "fleet.db-wal" in modes
    assert set(modes.values()) == {0o600}


def test_a_database_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot be opened: (Not a directory|File exists)"):
        SqlStore(f"sqlite:///{tmp_path}/file/fleet.db")


@pytest.mark.parametrize("url", ["postgresql+psycopg://u:sesame@h:notaport/db", "sesame"])
def test_a_url_that_cannot_be_read_is_not_repeated_because_of_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SqlStore(url)
    assert "sesame" not in str(caught.value)


def test_a_file_that_is_no_database_is_the_databases_fault_not_the_messages(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_bytes(b"hello, I am a picture of a cat" * 100)
    store = SqlStore(f"sqlite:///{tmp_path}/fleet.db")
    with pytest.raises(StoreError, match="not a database"):
        migrate.upgrade(store)
    store.close()
