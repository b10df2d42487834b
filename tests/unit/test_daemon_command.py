"""`fleetd` itself: exit codes, and errors in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetd import __version__
from fleetd.app import landing_beside
from tests.brokers import Mosquitto


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleetd.cli.daemon", *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_and_version_end_well(tmp_path: Path) -> None:
    assert run(tmp_path, "version").stdout.strip() == __version__
    shown = run(tmp_path, "--help")
    assert shown.returncode == 0
    assert all(word in shown.stdout for word in ("serve", "demo", "migrate", "settings", "doctor", "backup"))


@pytest.mark.parametrize(
    ("words", "environment", "what"),
    [
        (("serve",), {"FLEETD_HTTP__PROT": "1"}, "no setting"),
        (("serve",), {"FLEETD_HTTP__HOST": "0.0.0.0"}, "tokens could be read"),
        (("serve", "--config", "nowhere.toml"), {}, "cannot be read"),
        (("serve",), {"FLEETD_BROKER__MODE": "external"}, "names no broker"),
        (("serve",), {"FLEETD_BROKER__MOSQUITTO": "/nowhere/mosquitto"}, "no program"),
        (("serve",), {"FLEETD_DATABASE": "nonsense"}, "cannot be read"),
        (("serve",), {"FLEETD_STATE_DIR": "/proc/nowhere"}, "cannot be made"),
        (("fly",), {}, "No such command"),
        (("demo", "--cameras", "0"), {}, "--cameras"),
    ],
)
def test_what_cannot_work_refuses_with_exit_code_2_and_says_why(
    tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], what: str
) -> None:
    ran = run(tmp_path, *words, **{"FLEETD_HTTP__PORT": "0", "FLEETD_BROKER__PORT": "0", **environment})
    assert ran.returncode == 2, ran.stderr
    assert what in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "fleetd-data" / "admin.token").exists()


def test_a_port_in_use_is_an_error_before_anything_runs(tmp_path: Path, mosquitto: Mosquitto) -> None:
    for name, what in (("FLEETD_HTTP__PORT", "in use"), ("FLEETD_BROKER__PORT", "not fleetd's")):
        ports = {"FLEETD_HTTP__PORT": "0", "FLEETD_BROKER__PORT": "0", name: str(mosquitto.port)}
        ran = run(tmp_path, "serve", **ports)
        assert ran.returncode == 1
        assert what in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_demo_that_fails_says_so_in_its_exit_code(tmp_path: Path) -> None:
    broken = tmp_path / "numpy.py"  # as if the extra were there but broken
    broken.write_text("raise ImportError('broken')")
    ran = run(tmp_path, "demo", "--once", "--cameras", "1", PYTHONPATH=str(tmp_path))
    assert ran.returncode == 1, ran.stdout
    assert "Traceback" not in ran.stderr


def test_settings_are_shown_without_their_secrets(tmp_path: Path) -> None:
    ran = run(tmp_path, "settings", FLEETD_BROKER__PASSWORD="canary-1")
    assert ran.returncode == 0
    assert "broker.password = **********" in ran.stdout
    assert "canary-1" not in ran.stdout + ran.stderr


def test_migrate_brings_a_database_up_and_says_where_it_is(tmp_path: Path) -> None:
    assert "revision" in run(tmp_path, "migrate").stdout
    assert "already" in run(tmp_path, "migrate").stdout


def test_a_backup_is_written_and_comes_back_by_command(tmp_path: Path) -> None:
    assert run(tmp_path, "migrate").returncode == 0
    made = run(tmp_path, "backup", "fleet.backup")
    assert (made.returncode, made.stdout[:36]) == (0, "fleet.backup: 0 cameras, 0 results, "), made.stderr
    assert run(tmp_path, "backup", "fleet.backup").stderr.startswith("fleetd: fleet.backup exists.")
    back = run(tmp_path, "restore", "fleet.backup", FLEETD_STATE_DIR=str(tmp_path / "new"))
    assert (back.returncode, back.stderr) == (0, "")
    assert (tmp_path / "new" / "fleet.db").stat().st_mode & 0o777 == 0o600
    wrong = run(tmp_path, "restore", "fleetd-data/fleetd.lock")
    assert wrong.returncode == 1
    assert "no file" in wrong.stderr or "no backup" in wrong.stderr


def test_a_restore_refuses_while_another_process_stores_messages(tmp_path: Path) -> None:
    """It would go on acknowledging what the restored database does not hold."""
    with landing_beside(tmp_path / "fleetd-data"):
        ran = run(tmp_path, "restore", "backup.db")
    assert ran.returncode == 2
    assert "stop it first" in ran.stderr
    assert "There is no file" in run(tmp_path, "restore", "backup.db").stderr
