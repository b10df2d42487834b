"""Runs camera code on the real MicroPython interpreter, in a heap as small as a camera's."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEVICE_FAKES = ROOT / "tests" / "agent" / "device"  # stand-ins for the firmware's own modules

Arch = Literal["amd64", "i386"]


def binary(arch: Arch) -> Path:
    """MicroPython 1.25 (unix port). `i386` has the cameras' word size, so heap figures are comparable."""
    name = f"micropython-{arch}"
    folders = [ROOT / ".tools" / "bin"]
    if elsewhere := os.environ.get("FLEETD_TOOLS"):
        folders.append(Path(elsewhere) / "bin")
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    if found := shutil.which(name):
        return Path(found)
    pytest.fail(f"{name} is not here; `make tools` fetches it", pytrace=False)


def run_device(
    arch: Arch,
    script: Path,
    *args: str,
    heapsize: str = "128k",
    timeout: float = 180.0,
    env: Mapping[str, str] | None = None,
    paths: Sequence[Path] = (),
    own_sources: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs `script` to its end with at most `heapsize` of heap and answers what it printed.

    It can import `camera_agent` (without `own_sources` only if that lies in `paths`), what lies in `paths`, and the
    fakes of the firmware's modules. Raises AssertionError with everything it said when it fails or takes longer than
    `timeout` seconds.
    """
    own = [str(ROOT)] if own_sources else []
    search = [*own, *map(str, paths), str(DEVICE_FAKES), ".frozen"]
    command = [str(binary(arch)), "-X", f"heapsize={heapsize}", str(script), *args]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={"PATH": os.defpath, "MICROPYPATH": ":".join(search), **(env or {})},
    )
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
            failure = None if process.returncode == 0 else f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            failure = f"was not done after {timeout:g} s"
        except BaseException:
            process.kill()
            raise
    if failure:
        raise AssertionError(
            f"{script.name} on MicroPython {arch} (heap {heapsize}) {failure}\n"
            f"--- stdout ---\n{out}\n--- stderr ---\n{err}"
        )
    return subprocess.CompletedProcess(command, process.returncode, out, err)
