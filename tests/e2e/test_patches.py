"""Patches with every part real: fleetctl makes them, cameras that run the base fetch them, all others do not."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

from fleetd.bundles import manifests
from fleetd.bundles.encodings import cut
from fleetd.bundles.opening import open_bundle
from fleetd.bundles.patching import make_patch
from fleetd.bundles.release import BuiltRelease, build_release
from fleetd.domain.records import Release
from fleetd.protocol.manifest import HEADER_BYTES, Encoding, Manifest
from fleetd.simulator.assets import bundle_folder
from tests.brokers import ROOT, Mosquitto
from tests.e2e.site import PREFIX, Site, Subscriber, offer, until


@pytest.fixture
def desk(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Site]:
    """A site whose operator has the key in a file."""
    site = Site(tmp_path, mosquitto)
    site.start()
    site.key.save(tmp_path / "key.pem", None)
    yield site
    site.stop()


@pytest.fixture
def reports(mosquitto: Mosquitto) -> Iterator[Subscriber]:
    """What every camera says about updates."""
    with closing(Subscriber(mosquitto.port, f"{PREFIX}/+/up/update")) as listener:
        yield listener


def retrained(folder: Path) -> Path:
    """A bundle with demo-v1 after a little training: a hundred weights of its largest layer have changed."""
    data = bytearray((bundle_folder("demo-v1") / "trained.tflite").read_bytes())
    model = schema.Model.GetRootAs(bytes(data))
    buffers = [model.Buffers(n) for n in range(model.BuffersLength())]
    weights = max((one.DataAsNumpy().tobytes() for one in buffers if one.DataLength()), key=len)
    at = data.index(weights)
    for n in range(at, at + 1000, 10):
        data[n] ^= 1
    bundle = folder / "retrained"
    bundle.mkdir()
    (bundle / "trained.tflite").write_bytes(data)
    (bundle / "labels.txt").write_bytes((bundle_folder("demo-v1") / "labels.txt").read_bytes())
    return bundle


def fleetctl(site: Site, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fleetd.cli", *map(str, arguments)],
        env={
            **os.environ,
            "FLEETCTL_URL": site.daemon.url,
            "FLEETCTL_TOKEN_FILE": str(site.folder / "state" / "admin.token"),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def settle_on(site: Site, camera: str, model: str) -> Release:
    """Brings one of our models to one camera, and waits until fleetd knows what it runs."""
    rollout = site.push(model, f"id={camera}")
    until(lambda: site.confirmed(rollout), what=model)
    release: Release = site.daemon.ota.releases()[0]
    until(
        lambda: site.daemon.registry.camera(camera).camera.release_digest == release.content_sha256,
        what="the status",
    )
    return release


def told(reports: Subscriber, camera: str, release: str) -> list[dict[str, Any]]:
    """What a camera said about one release, in order; what it said twice, once."""
    found = [json.loads(payload) for topic, payload in reports.messages if topic.split("/")[2] == camera]
    once = {(one["boot"], one["seq"]): one for one in found if one["release"] == release}
    return list(once.values())


def confirmed(reports: Subscriber, camera: str, release: str) -> bool:
    """Whether a camera has said that it runs the release."""
    return any(one["state"] == "confirmed" for one in told(reports, camera, release))


def fetched(reports: Subscriber, camera: str, release: str) -> tuple[int, int]:
    """(blocks of the encoding that a camera took, bytes that it received with the index)."""
    (last,) = [one for one in told(reports, camera, release) if one["state"] == "verifying"]
    assert last["blocks"]["done"] == last["blocks"]["total"]
    return last["blocks"]["total"], last["bytes"]


def wire(encoding: Encoding) -> tuple[int, int]:
    """The same, as it should be."""
    return encoding.blocks, encoding.size + 32 * encoding.blocks


def test_a_camera_that_runs_the_base_fetches_the_patch_and_the_others_everything(
    desk: Site, reports: Subscriber
) -> None:
    for name in ("cam-1", "cam-2", "cam-3"):
        desk.camera(name).start()
    base = settle_on(desk, "cam-1", "demo-v1")
    settle_on(desk, "cam-2", "demo-v2")  # cam-3 has no model at all
    push = ("push-model", retrained(desk.folder), "--to", "all", "--key", desk.folder / "key.pem")

    rehearsal = fleetctl(desk, *push, "--dry-run", "--json")
    assert rehearsal.returncode == 0, rehearsal.stderr
    assert len(desk.daemon.ota.releases()) == 2
    cost = json.loads(rehearsal.stdout)["cost"]

    ran = fleetctl(desk, *push, "--yes")
    assert ran.returncode == 0, ran.stderr
    assert "1 camera by a patch" in ran.stderr
    blob = desk.daemon.ota.manifest("model-3")
    full, patch = Manifest.model_validate_json(blob[HEADER_BYTES:]).encodings
    assert (patch.kind, patch.base) == ("patch", base.content_sha256)
    assert patch.blocks < full.blocks

    until(lambda: all(confirmed(reports, name, "model-3") for name in ("cam-1", "cam-2", "cam-3")))
    assert fetched(reports, "cam-1", "model-3") == wire(patch)
    for name in ("cam-2", "cam-3"):
        assert fetched(reports, name, "model-3") == wire(full)
    sizes = {one["encoding"]: one["bytes"] - len(blob) for one in cost["groups"]}
    assert sizes == {"patch": wire(patch)[1], "deflate": wire(full)[1]}, "what the rehearsal said"
    wanted = desk.daemon.ota.release("model-3").content_sha256
    until(
        lambda: all(
            desk.daemon.registry.camera(name).camera.release_digest == wanted
            for name in ("cam-1", "cam-2", "cam-3")
        ),
        what="running the same content, however it came",
    )


def _with_patch(desk: Site, bundle: Path, base: bytes, stream: bytes) -> BuiltRelease:
    """The next release, with these bytes as a patch on `base`: signed, and wrong."""
    release_id, epoch, sequence = desk.daemon.ota.next_release()
    good = build_release(
        open_bundle(bundle),
        release_id=release_id,
        name="retrained",
        version="1",
        epoch=epoch,
        sequence=sequence,
        boards=["*"],
        created=1,
        key=desk.key,
    )
    wrong = cut("patch", stream, hashlib.sha256(base).hexdigest())
    encodings = (*good.encodings, wrong)
    manifest = good.manifest.model_copy(update={"encodings": [one.entry() for one in encodings]})
    return BuiltRelease(
        manifest, desk.key.sign(manifests.canonical(manifest)), good.content, encodings, good.findings
    )


@pytest.mark.parametrize("flaw", ["no deflate stream", "gives another content"])
def test_a_patch_that_does_not_lead_to_the_content_is_followed_by_the_full_encoding(
    desk: Site, reports: Subscriber, flaw: str
) -> None:
    """fleetd refuses such a release; here it comes from a broker, properly signed."""
    desk.camera("cam-1").start()
    base = desk.daemon.ota.content(settle_on(desk, "cam-1", "demo-v1").id)
    stream = b"\xff" * 500
    if flaw == "gives another content":
        stream = make_patch(base, base[:-100] + bytes(100))
    built = _with_patch(desk, retrained(desk.folder), base, stream)
    release, full = built.manifest.release, built.encodings[0].entry()
    with closing(Subscriber(desk.broker.port, f"{PREFIX}/_nobody")) as attacker:
        offer(attacker, built, built.blob, 1000)
    until(lambda: confirmed(reports, "cam-1", release), what="the full encoding")
    said = told(reports, "cam-1", release)
    assert [one["blocks"]["total"] for one in said if one["state"] == "verifying"] == [1, full.blocks]
    assert any("taking the full encoding" in (one.get("detail") or "") for one in said)
    assert said[-1]["digest"] == built.manifest.content.sha256
