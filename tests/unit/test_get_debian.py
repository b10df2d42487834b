"""Fetching programs: what happens where there is nothing to fetch, or no way to fetch it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "get_debian.py"
KEYRINGS = Path("/usr/share/keyrings")


def program(folder: Path, name: str, text: str = "exit 0") -> Path:
    folder.mkdir(exist_ok=True)
    made = folder / name
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return made


def run(tools: Path, tool: str, *, path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, SCRIPT, tool, "--into", tools],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_programs_that_the_machine_has_are_used_and_nothing_is_fetched(tmp_path: Path) -> None:
    here = [program(tmp_path / "path", f"micropython-{arch}") for arch in ("amd64", "i386")]
    done = run(tmp_path / "tools", "micropython", path=tmp_path / "path")
    assert done.returncode == 0, done.stderr
    assert all(f"{made.name}: {made}" in done.stdout for made in here)
    assert not (tmp_path / "tools" / "bin").exists()


def test_without_debian_it_says_what_to_install_by_hand(tmp_path: Path) -> None:
    done = run(tmp_path / "tools", "micropython", path=tmp_path / "empty")
    assert done.returncode == 1
    assert done.stderr.startswith("get_debian: apt-get is not here")
    assert "put MicroPython 1.25 (unix port, amd64) on the PATH as micropython-amd64" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_failed_download_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    if not list(KEYRINGS.glob("debian-archive-keyring.*")):
        pytest.skip("Debian's archive keys are not on this machine")
    path, tools = tmp_path / "path", tmp_path / "tools"
    archive = 'printf "http://deb.example/debian/\\tDebian\\n"'
    fails = f'case "$1" in indextargets) {archive};; *) echo "E: no route" >&2; exit 100;; esac'
    program(path, "apt-get", fails)
    program(path, "dpkg-deb")
    (tools / "fetching-by-a-killed-run").mkdir(parents=True)
    done = run(tools, "micropython", path=path)
    assert done.returncode == 1
    assert "E: no route" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tools.iterdir()] == ["lock"]
