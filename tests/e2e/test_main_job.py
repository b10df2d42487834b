"""The main job with every part real: mosquitto, fleetd, and the real agent with a real model in LiteRT."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetd.bundles.signing import OperatorKey
from fleetd.domain.records import AssignmentState
from fleetd.protocol.messages import UP
from fleetd.simulator.assets import bundle_folder
from tests.brokers import ROOT
from tests.e2e.site import PREFIX, Site, Subscriber, offer, until


def test_cameras_classify_and_change_their_model_over_the_air(
    site: Site, subscriber: Callable[[str], Subscriber]
) -> None:
    listener = subscriber("+/up/#")
    cameras = [site.camera(f"cam-{n}") for n in range(3)]
    for camera in cameras:
        camera.start()
    first = site.push("demo-v1")
    until(lambda: site.confirmed(first), what="the first model")
    until(lambda: all(site.results(camera.name, "model-1") >= 10 for camera in cameras), what="results")
    second = site.push("demo-v2")
    until(lambda: site.confirmed(second), what="the second model")
    until(lambda: all(site.results(camera.name, "model-2") >= 10 for camera in cameras), what="results")
    until(lambda: all(site.running(camera.name) == "model-2" for camera in cameras))
    until(lambda: all(camera.led == ("blue", "solid") for camera in cameras))
    until(
        lambda: any(seen.color == "blue" for seen in site.daemon.registry.sightings("cam-0")),
        what="the LED report",
    )

    channels = set()
    for topic, payload in listener.messages:
        channel = topic.split("/")[4]
        channels.add(channel)
        UP[channel].validate_python(UP[channel].validate_json(payload))
        assert json.loads(payload.decode())["boot"], "readable JSON for whoever subscribes"
    assert channels >= {"status", "result", "telemetry", "led", "update", "event"}


def test_the_second_model_is_better_and_the_database_shows_it(site: Site) -> None:
    camera = site.camera("cam-1", interval_ms=0)
    camera.start()
    for model, release in (("demo-v1", "model-1"), ("demo-v2", "model-2")):
        rollout = site.push(model)
        until(lambda rollout=rollout: site.confirmed(rollout))  # type: ignore[misc]
        until(lambda release=release: site.results("cam-1", release) >= 150)  # type: ignore[misc]
    right: dict[str, list[bool]] = {"model-1": [], "model-2": []}
    for row in site.daemon.registry.results(camera="cam-1", limit=1000):
        right[row["release_id"]].append(camera.truth(row["boot"], row["frame"]) == row["label"])
    shares = {release: sum(found) / len(found) for release, found in right.items()}
    assert shares["model-2"] > 0.93
    assert shares["model-1"] < shares["model-2"] - 0.04


def test_a_camera_that_was_off_takes_the_push_when_it_comes_back_without_fleetd(site: Site) -> None:
    """Retained desired state and blocks: fleetd may be down when the camera wakes up."""
    camera = site.camera("cam-1")
    camera.start()
    first = site.push("demo-v1")
    until(lambda: site.confirmed(first))
    camera.power_cut()
    second = site.push("demo-v2")
    until(lambda: not site.daemon.delivery.step(), what="publishing")
    time.sleep(1.5)  # the delivery job has its turn, too
    site.daemon.stop()

    camera.start()
    listener = Subscriber(site.broker.port, f"{PREFIX}/cam-1/up/update")
    until(lambda: any(b'"confirmed"' in payload for _, payload in listener.messages), 40, "confirming")
    listener.close()
    assert not site.daemon.link.ready

    site.restart()
    until(lambda: site.confirmed(second) and site.running("cam-1") == "model-2", what="the late news")


def test_a_camera_whose_power_is_cut_again_and_again_ends_up_with_the_new_model(site: Site) -> None:
    """Regression (a), (b): a cut in the middle of an update is never success and never the end."""
    camera = site.camera("cam-1")
    camera.start()
    first = site.push("demo-v1")
    until(lambda: site.confirmed(first) and site.running("cam-1") == "model-1")
    second = site.push("demo-v2")
    for cut in range(8):
        time.sleep(0.05 * cut)
        camera.power_cut()
        assert site.running("cam-1") in ("model-1", "model-2")
        camera.start()
    until(lambda: site.states(second)["cam-1"] is not AssignmentState.TRANSFERRING)
    until(
        lambda: site.states(second)["cam-1"] in (AssignmentState.CONFIRMED, AssignmentState.REVERTED),
        60,
        "an outcome",
    )
    before = site.results("cam-1", site.running("cam-1") or "")
    until(lambda: site.results("cam-1", site.running("cam-1") or "") > before, what="classifying goes on")


def test_a_trial_that_crashes_the_board_goes_back_by_itself_and_is_not_offered_again(site: Site) -> None:
    """Regression (p)."""
    camera = site.camera("cam-1")
    camera.start()
    first = site.push("demo-v1")
    until(lambda: site.confirmed(first))
    camera.faults.crash_on_load = True
    second = site.push("demo-v2")
    until(lambda: camera.boots >= 3, what="crashing twice")
    camera.faults.crash_on_load = False
    until(lambda: site.states(second)["cam-1"] is AssignmentState.REVERTED, what="the revert")
    (assignment,) = site.daemon.ota.rollout(second).assignments
    assert assignment.reason == "trial-crashed"
    count = site.results("cam-1", "model-1")
    until(lambda: site.results("cam-1", "model-1") > count, what="the old model goes on")
    preview = site.daemon.ota.preview("model-2", "all")
    assert preview.cameras == ()


def test_a_camera_without_room_says_so_and_goes_on(site: Site) -> None:
    camera = site.camera("cam-1")
    camera.faults.full_disk = True
    camera.start()
    rollout = site.push("demo-v1")
    until(lambda: site.states(rollout)["cam-1"] is AssignmentState.REJECTED, what="the refusal")
    (assignment,) = site.daemon.ota.rollout(rollout).assignments
    assert assignment.reason == "not-enough-storage"
    assert camera.alive


@pytest.mark.parametrize(
    "attack", ["another key", "unsigned", "a changed manifest", "an older one", "a truncated block"]
)
def test_what_the_operator_has_not_signed_is_refused_and_the_old_model_keeps_running(
    site: Site, subscriber: Callable[[str], Subscriber], attack: str
) -> None:
    camera = site.camera("cam-1")
    camera.start()
    site.push("demo-v1")
    second = site.push("demo-v2")
    until(lambda: site.confirmed(second))
    attacker = subscriber("cam-1/up/update")
    built = site.build("collapsed")
    blob, reason, cut = built.blob, "signature-invalid", None
    if attack == "another key":
        built = site.build("collapsed", key=OperatorKey.generate())
        blob, reason = built.blob, "unknown-key"
    elif attack == "unsigned":
        blob = blob[:12] + bytes(64) + blob[76:]
    elif attack == "a changed manifest":
        blob = blob.replace(b'"name":"collapsed"', b'"name":"Collapsed"')
    elif attack == "an older one":
        built = site.build("collapsed", sequence=1)
        blob, reason = built.blob, "sequence-too-old"
    else:
        reason, cut = "digest-mismatch", 0
    offer(attacker, built, blob, 1000, cut=cut)

    def refused() -> bool:
        return any(json.loads(payload).get("reason") == reason for _, payload in attacker.messages)

    until(refused, 45, f"refusing with {reason}")
    before = site.results("cam-1", "model-2")
    until(lambda: site.results("cam-1", "model-2") > before + 5, what="classifying goes on")
    assert camera.boots == 1
    assert site.results("cam-1", built.manifest.release) == 0


@pytest.mark.parametrize("damage", ["labels", "model"])
def test_a_bundle_that_cannot_work_never_leaves_the_operators_desk(
    site: Site, tmp_path: Path, damage: str
) -> None:
    camera = site.camera("cam-1")
    camera.start()
    first = site.push("demo-v1")
    until(lambda: site.confirmed(first) and site.running("cam-1") == "model-1")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    model = (bundle_folder("demo-v2") / "trained.tflite").read_bytes()
    labels = (bundle_folder("demo-v2") / "labels.txt").read_text()
    (bundle / "trained.tflite").write_bytes(model[: len(model) // 2] if damage == "model" else model)
    (bundle / "labels.txt").write_text(labels.rstrip() + "\na fourth\n" if damage == "labels" else labels)
    site.key.save(tmp_path / "key.pem", None)
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "fleetd.cli",
            "push-model",
            str(bundle),
            "--to",
            "all",
            "--yes",
            "--key",
            tmp_path / "key.pem",
        ],
        env={
            **os.environ,
            "FLEETCTL_URL": site.daemon.url,
            "FLEETCTL_TOKEN_FILE": str(site.folder / "state" / "admin.token"),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(site.daemon.ota.releases()) == 1
    assert site.running("cam-1") == "model-1"


def test_commands_reach_a_camera_and_are_answered(site: Site) -> None:
    camera = site.camera("cam-1")
    camera.start()
    until(lambda: site.daemon.registry.camera("cam-1").presence == "online")
    identify = site.daemon.registry.send_command("cam-1", "identify", actor="alice")
    until(lambda: site.daemon.registry.command(identify)["state"] == "done", what="identify")
    reboot = site.daemon.registry.send_command("cam-1", "reboot", actor="alice")
    until(lambda: site.daemon.registry.command(reboot)["state"] == "done", what="reboot")
    until(lambda: camera.boots == 2)
    time.sleep(1.0)
    assert camera.boots == 2, "one reboot, however often the broker repeats it"


def test_two_daemons_on_one_folder_refuse_each_other(site: Site) -> None:
    with pytest.raises(Exception, match="Another fleetd is running"):
        site._daemon().start()


def test_the_demo_runs_by_itself_and_ends_well(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    output: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "fleetd.cli.daemon", "demo", "--once", "--cameras", "2"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        reader = threading.Thread(target=output.extend, args=(demo.stdout,))
        reader.start()
        try:
            assert demo.wait(200) == 0, "".join(output)
        finally:
            demo.kill()
            reader.join()
    text = "".join(output)
    assert "2 of 2 cameras confirmed model-2" in text
    assert "Traceback" not in text
