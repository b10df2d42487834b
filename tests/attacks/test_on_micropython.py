"""A sample of the attacks on the interpreter that cameras have, in a heap like theirs."""

import hashlib
from pathlib import Path

import pytest

from tests.agent.micropython import Arch, run_device
from tests.agent.update_kit import lay_out, make_release, weights
from tests.attacks.kit import OPERATOR, RUNNING
from tests.attacks.manifests import MANIFESTS

SCRIPT = Path(__file__).parents[1] / "agent" / "device" / "check_attacks.py"


@pytest.mark.parametrize("arch", ["i386"])
def test_micropython_refuses_with_the_same_words(arch: Arch, tmp_path: Path) -> None:
    broker, storage = tmp_path / "broker", tmp_path / "storage"
    broker.mkdir()
    storage.mkdir()
    honest = make_release(OPERATOR, "model-honest", weights(9000, 77), 1000)
    lay_out(broker, OPERATOR, [make_release(OPERATOR, "model-1", RUNNING), honest])
    lines = []
    for n, (blob, state, reason) in enumerate(list(MANIFESTS.values())[::4]):
        name = f"case-{n}"
        (broker / f"{name}.manifest").write_bytes(blob)
        lines.append(f"{name} {state} {reason}\n")
    (broker / "cases").write_text("".join(lines))
    digest = hashlib.sha256(RUNNING).hexdigest()
    done = run_device(arch, SCRIPT, str(broker), str(storage), digest, heapsize="160k", timeout=240)
    assert done.stdout.strip() == f"{len(lines)} repelled"
