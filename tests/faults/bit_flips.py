"""Flip every single bit of a signed manifest and let MicroPython judge each: `make faults` ends with it.

python -m tests.faults.bit_flips --step 1
"""

import argparse
import json
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.agent.micropython import ROOT, Arch, run_device
from tests.agent.update_kit import Signer, describe, full, weights

SCRIPT: Final = ROOT / "tests" / "agent" / "device" / "check_flips.py"
LANES: Final = 8  # runs, each of which takes every eighth bit


def signed_manifest(folder: Path) -> int:
    """A manifest and its key as files; answers its bits."""
    signer, content = Signer(), weights(3000)
    text = json.dumps(describe("model-1", content, [full(content)]), separators=(",", ":")).encode()
    blob = signer.manifest(text)
    (folder / "key").write_bytes(signer.public)
    (folder / "manifest").write_bytes(blob)
    return 8 * len(blob)


def judge(folder: Path, first: int, step: int, arch: Arch = "amd64") -> tuple[int, int]:
    """How many flips were tried on MicroPython, and how many of them accepted."""
    named = (str(folder / "key"), str(folder / "manifest"), str(first), str(step))
    said = run_device(arch, SCRIPT, *named, heapsize="1m", timeout=3600).stdout
    found = re.fullmatch(r"(?:accepted with bit \d+\n)*flips (\d+) accepted (\d+)\n", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


def main() -> int:
    """0: none was accepted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--step", type=int, default=1, help="1: every bit")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(given.jobs) as pool:
        folder = Path(name)
        bits = signed_manifest(folder)
        lanes = [pool.submit(judge, folder, n * given.step, LANES * given.step) for n in range(LANES)]
        results = [lane.result() for lane in lanes]
    tried, accepted = (sum(each) for each in zip(*results, strict=True))
    print(
        f"{tried:,} single-bit flips of a signed manifest of {bits:,} bits on MicroPython: {accepted} accepted "
        f"({time.monotonic() - began:.0f} s)"
    )
    return 1 if accepted else 0


if __name__ == "__main__":
    sys.exit(main())
