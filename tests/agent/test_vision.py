"""Capturing, classifying, batching: when frames are taken, what results say, what happens when something fails."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_agent import seeing
from camera_agent import vision as vision_module
from camera_agent.models import ModelError
from camera_agent.publish import clipped
from camera_agent.vision import Vision, parse_labels, read_labels
from fleetd.protocol import messages
from tests.agent.core_kit import LABELS, CoreHal, model_release, settings_of


class Content:
    """A slot's content."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def readinto(self, offset: int, view: memoryview) -> int:
        part = self.data[offset : offset + len(view)]
        view[: len(part)] = part
        return len(part)


class Choice:
    """What updater.model_to_use() answers."""

    def __init__(self, release: str, trial: bool = False, **model: Any) -> None:
        made = model_release(release, **model)
        self.release = release
        self.trial = trial
        self.slot = "a"
        self.content = Content(made.content)
        self.files = files_of(made.blob)
        self.golden = None


def files_of(blob: bytes) -> list[dict[str, Any]]:
    import json

    return list(json.loads(blob[76:])["content"]["files"])


class Updater:
    """Says which model to use; notes what it is told."""

    def __init__(self) -> None:
        self.choice: Choice | None = None
        self.before: Choice | None = None  # what a failed trial goes back to
        self.frames: list[int] = []
        self.failed: list[tuple[str, str | None]] = []

    def model_to_use(self) -> Choice | None:
        return self.choice

    def trial_frame_ok(self, ms: int) -> None:
        self.frames.append(ms)

    def trial_failed(self, reason: str, detail: str | None = None) -> bool:
        if self.choice is None or not self.choice.trial:
            return False
        self.failed.append((reason, detail))
        self.choice = self.before
        return True


class Rig:
    """A Vision with everything around it faked."""

    def __init__(self, choice: Choice | None = None, **settings: Any) -> None:
        self.hal = CoreHal()
        self.updater = Updater()
        self.updater.choice = choice
        self.sent: list[dict[str, Any]] = []
        self.reported: list[tuple[str, str]] = []
        self.refuse_over = 10**9  # bytes of a message that the outbox takes
        self.settings = settings_of(**settings)
        self.vision = Vision(self.hal, self.settings, self.updater, self._put, self._report)

    def _put(self, channel: str, body: dict[str, Any]) -> int:
        assert channel == "result"
        if len(str(body)) > self.refuse_over:
            return 0
        checked = {**body, "boot": "0" * 16, "seq": 1, "up_ms": self.hal.now}
        messages.RESULT.validate_python(checked)
        self.sent.append(body)
        return len(self.sent)

    def _report(self, where: str, error: Exception) -> None:
        self.reported.append((where, str(error)))

    def run(self, ms: int) -> "Rig":
        until = self.hal.now + ms
        while self.hal.now < until:
            if not self.vision.step():
                self.hal.now += 5
        return self

    def results(self) -> list[dict[str, Any]]:
        return [result for body in self.sent for result in body["results"]]


# --- labels and scores ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        ("a\nb\n\n\r\n\n", ["a", "b"]),
        ("a\n\nb\n", ["a", "", "b"]),
        ("blue ball\nlego figure", ["blue ball", "lego figure"]),
        ("", []),
    ],
)
def test_labels_are_lines(text: str, labels: list[str]) -> None:
    assert parse_labels(text) == labels


def test_labels_are_read_from_where_the_manifest_says() -> None:
    choice = Choice("m-1")
    assert read_labels(choice.content, choice.files) == list(LABELS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [(b"\xff\xfe\x00", "labels-mismatch"), (b"x\n" * 20_000, "labels-mismatch")],
)
def test_labels_that_are_none_are_refused(text: bytes, reason: str) -> None:
    choice = Choice("m-1", text=text)
    with pytest.raises(ModelError) as caught:
        read_labels(choice.content, choice.files)
    assert caught.value.reason == reason


def test_a_release_without_labels_is_refused() -> None:
    choice = Choice("m-1")
    with pytest.raises(ModelError, match="labels-mismatch"):
        read_labels(choice.content, [entry for entry in choice.files if entry["path"] != "labels.txt"])


def test_a_slot_that_ends_too_early_is_a_matter_of_storage() -> None:
    choice = Choice("m-1")
    with pytest.raises(ModelError, match="storage-error"):
        read_labels(Content(b""), choice.files)


@given(st.floats())
def test_every_score_fits_the_contract(score: float) -> None:
    assert 0.0 <= clipped(score) <= 1.0
    if 0 <= score <= 1:
        assert math.isclose(clipped(score), score, abs_tol=0.0001)


# --- frames and results -----------------------------------------------------------------------------------


def test_a_frame_is_taken_every_interval() -> None:
    rig = Rig(Choice("m-1"), interval_ms=500).run(10_000)
    assert rig.hal.captures == 20
    assert [result["frame"] for result in rig.results()] == list(range(1, len(rig.results()) + 1))


def test_an_interval_of_zero_is_as_fast_as_the_model_allows() -> None:
    rig = Rig(Choice("m-1", ms=100), interval_ms=0).run(10_000)
    assert rig.hal.captures == 100


def test_after_a_long_pause_missed_frames_are_not_made_up_for() -> None:
    rig = Rig(Choice("m-1"), interval_ms=1000).run(3000)
    before = rig.hal.captures
    rig.hal.now += 60_000
    rig.run(2000)
    assert rig.hal.captures - before <= 3


def test_a_shorter_interval_takes_effect_at_once() -> None:
    rig = Rig(Choice("m-1"), interval_ms=3_600_000).run(5000)
    assert rig.hal.captures == 1
    rig.settings["interval_ms"] = 1000
    rig.run(5000)
    assert rig.hal.captures == 6


def test_a_result_is_the_best_label_with_its_score_as_it_is() -> None:
    rig = Rig(Choice("m-1", scores=[0.25, 0.3, 0.45004]), batch=1).run(100)
    (result,) = rig.results()
    assert (result["label"], result["score"], result["inference_ms"]) == ("lego figure", 0.45, 40)
    assert "scores" not in result
    assert rig.sent[0]["release"] == "m-1"


def test_all_scores_are_sent_when_they_are_wanted_and_always_fit() -> None:
    rig = Rig(Choice("m-1", scores=[-0.2, float("nan"), 1.5]), batch=1, scores=True).run(100)
    (result,) = rig.results()
    assert result["scores"] == [0.0, 0.0, 1.0]
    assert result["label"] == "lego figure"


def test_a_batch_is_sent_when_it_is_full() -> None:
    rig = Rig(Choice("m-1"), interval_ms=100, batch=4, batch_ms=60_000).run(2000)
    assert {len(body["results"]) for body in rig.sent} == {4}


def test_a_batch_is_sent_when_its_time_is_up() -> None:
    rig = Rig(Choice("m-1"), interval_ms=1000, batch=64, batch_ms=2500).run(20_000)
    assert {len(body["results"]) for body in rig.sent} == {3}


def test_every_result_says_when_its_frame_was_taken() -> None:
    rig = Rig(Choice("m-1"), interval_ms=1000, batch=3, batch_ms=60_000).run(2500)
    sent_at = rig.hal.now
    rig.run(600)
    assert [result["dt"] for result in rig.sent[0]["results"]] == [-2040, -1040, -40]
    assert rig.hal.now >= sent_at


def test_on_change_sends_new_labels_and_one_a_minute() -> None:
    rig = Rig(Choice("m-1"), interval_ms=1000, publish="on_change", batch=1).run(150_000)
    assert len(rig.results()) == 3
    rig.hal.loaded[-1].behaviour["scores"] = [0.9, 0.05, 0.05]
    rig.run(2000)
    assert [result["label"] for result in rig.results()][-2:] == ["blue ball", "background"]


def behave(rig: Rig, *scores: list[float]) -> None:
    """One frame after the other with these scores."""
    for one in scores:
        rig.hal.loaded[-1].behaviour["scores"] = one
        rig.run(1000)


BALL, FIGURE, NOTHING = [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]


def test_a_label_that_flickers_is_no_change() -> None:
    rig = Rig(Choice("m-1"), publish="on_change", change_frames=3, interval_ms=1000, batch_ms=0).run(3500)
    behave(rig, FIGURE, BALL, FIGURE, FIGURE, NOTHING, FIGURE, FIGURE, FIGURE, FIGURE)
    assert [result["label"] for result in rig.results()] == ["blue ball", "lego figure"]


def test_interval_sends_the_newest_answer_only() -> None:
    rig = Rig(Choice("m-1"), publish="interval", publish_s=10, interval_ms=1000).run(500)
    behave(rig, *[BALL] * 4, *[FIGURE] * 9)
    assert [result["label"] for result in rig.results()] == ["lego figure"]
    assert rig.results()[0]["frame"] >= 10


def test_a_summary_counts_labels_and_says_how_sure_the_model_was() -> None:
    rig = Rig(Choice("m-1"), publish="summary", publish_s=60, interval_ms=1000).run(500)
    behave(rig, *[BALL] * 40, *[FIGURE] * 25)
    [message] = rig.sent
    counted = {one["label"]: (one["count"], one["score"]) for one in message["results"]}
    assert set(counted) == {"blue ball", "lego figure"}
    assert sum(count for count, _ in counted.values()) in (60, 61)
    assert all(score == 0.8 for _, score in counted.values())
    rig.vision.flush()
    assert len(rig.sent) == 2, "what has begun is told before an end"


@pytest.mark.parametrize("mode", ["every", "on_change", "interval", "summary"])
def test_every_mode_tells_everything_before_the_model_changes(mode: str) -> None:
    rig = Rig(Choice("m-1"), publish=mode, interval_ms=1000, batch=64, batch_ms=60_000).run(2500)
    rig.updater.choice = Choice("m-2")
    rig.run(100)
    assert [message["release"] for message in rig.sent] == ["m-1"]


def test_below_the_threshold_the_answer_is_unknown_with_its_score_as_it_is() -> None:
    rig = Rig(Choice("m-1"), threshold=0.7, interval_ms=1000, batch=1).run(500)
    behave(rig, BALL, [0.3, 0.4, 0.3], [float("nan")] * 3)
    told = [(result["label"], result["score"]) for result in rig.results()]
    assert told[-3:] == [("blue ball", 0.8), ("unknown", 0.4), ("unknown", 0.0)]


def test_a_mode_that_changes_while_the_camera_runs_takes_effect_at_once() -> None:
    rig = Rig(Choice("m-1"), publish="summary", interval_ms=1000).run(3500)
    rig.settings["publish"] = "every"
    rig.run(3000)
    assert [one.get("count") for one in rig.results()][:2] == [4, None]


def test_telemetry_says_what_a_frame_takes_in_microseconds() -> None:
    rig = Rig(Choice("m-1"), interval_ms=1000).run(2500)
    known = rig.vision.telemetry()
    assert (known["inference_ms"], known["capture_ms"], known["frame_ms"]) == (40.0, 0.0, 40.0)


def test_telemetry_has_one_digest_of_a_picture_in_each_period() -> None:
    rig = Rig(Choice("m-1"), interval_ms=1000).run(2500)
    assert rig.vision.telemetry()["picture"] == {"hash": "8f3c"}
    assert "picture" not in rig.vision.telemetry(), "no frame since"
    rig.hal.digested = None
    assert "picture" not in rig.run(2000).vision.telemetry()


def test_a_digest_follows_the_picture_and_says_nothing_about_darkness() -> None:
    picture = bytes(n * n % 251 for n in range(153_600))
    found = seeing.digest(picture)
    assert found is not None
    assert len(found) == 4
    assert seeing.digest(bytearray(picture)) == found
    noise = bytearray(picture)
    noise[len(noise) // 2] ^= 1
    assert seeing.digest(noise) != found
    assert seeing.digest(bytes(153_600)) is None
    assert seeing.digest(b"\x12\x34" * 76_800) is None
    assert seeing.digest(b"") is None


def test_a_message_that_is_too_large_is_cut_in_half_until_it_fits() -> None:
    rig = Rig(Choice("m-1"), interval_ms=100, batch=16, scores=True)
    rig.refuse_over = 500
    rig.run(3000)
    assert [result["frame"] for result in rig.results()][:16] == list(range(1, 17))
    assert all(len(body["results"]) < 16 for body in rig.sent)


def test_a_single_result_that_is_too_large_goes_without_its_scores() -> None:
    rig = Rig(Choice("m-1"), batch=1, scores=True)
    rig.refuse_over = 120
    rig.run(100)
    assert "scores" not in rig.results()[0]


def test_telemetry_tells_rate_median_and_worst_and_starts_anew() -> None:
    rig = Rig(Choice("m-1", ms=50), interval_ms=500).run(5000)
    rig.hal.loaded[-1].behaviour["ms"] = 400
    rig.run(400)
    known = rig.vision.telemetry()
    assert (known["frames"], known["inference_ms"], known["inference_ms_max"]) == (11, 50, 400)
    assert 1.9 <= known["fps"] <= 2.1
    assert rig.vision.telemetry() == {"frames": 11}


def test_nothing_is_captured_while_exposure_settles() -> None:
    rig = Rig(Choice("m-1"), interval_ms=100)
    rig.hal.settling = True
    rig.run(2000)
    assert rig.results() == []
    rig.hal.settling = False
    rig.run(4000)
    assert rig.results()[0]["frame"] == 1


# --- models -----------------------------------------------------------------------------------------------


def test_without_a_model_nothing_is_captured_and_that_is_said() -> None:
    rig = Rig().run(5000)
    assert rig.hal.captures == 0
    assert rig.vision.problems() == ["no-model"]


def test_the_sensor_is_told_what_the_model_wants_to_see() -> None:
    assert Rig(Choice("m-1")).run(10).hal.prepared == (96, 96, 3)


def test_a_new_choice_frees_the_old_model_first_and_results_keep_their_release() -> None:
    rig = Rig(Choice("m-1"), interval_ms=100, batch=64, batch_ms=60_000).run(1000)
    rig.updater.choice = Choice("m-2")  # the kit asserts that never two models are loaded
    rig.run(1000)
    rig.vision.flush()
    assert [body["release"] for body in rig.sent] == ["m-1", "m-2"]
    assert rig.hal.loaded[0].freed


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c", "d")])
def test_labels_that_do_not_match_the_output_end_a_trial(labels: tuple[str, ...]) -> None:
    rig = Rig(Choice("m-1"), interval_ms=100).run(500)
    rig.updater.before = rig.updater.choice
    rig.updater.choice = Choice("m-2", trial=True, labels=labels)
    rig.run(500)
    assert rig.updater.failed == [("labels-mismatch", f"{len(labels)} labels, 3 outputs")]
    assert rig.hal.loaded[1].freed
    assert rig.vision.problems() == []
    assert rig.sent[-1]["release"] == "m-1"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"load": "model-load-failed"}, "model-load-failed"),
        ({"raises": "Invoke failed"}, "trial-crashed"),
    ],
)
def test_a_bad_model_on_trial_is_given_back_and_the_old_one_goes_on(
    behaviour: dict[str, Any], reason: str
) -> None:
    rig = Rig(Choice("m-1"), interval_ms=100).run(500)
    rig.updater.before = rig.updater.choice
    rig.updater.choice = Choice("m-2", trial=True, **behaviour)
    rig.run(1000)
    assert [failed[0] for failed in rig.updater.failed] == [reason]
    frames = rig.vision.frames
    rig.run(1000)
    assert rig.vision.frames > frames
    assert rig.reported == []  # the update's own report says it


def test_on_the_fresh_heap_of_a_boot_a_lack_of_memory_ends_the_trial() -> None:
    rig = Rig(Choice("m-2", trial=True))
    rig.hal.load_error = MemoryError("allocating 300000 bytes")
    rig.run(100)
    assert rig.updater.failed[0][0] == "out-of-memory"
    assert not rig.vision.wants_fresh_heap


@pytest.mark.parametrize("before", [None, "m-1"])
def test_on_a_used_heap_a_lack_of_memory_asks_for_a_restart_and_keeps_the_trial(before: str | None) -> None:
    rig = Rig(Choice(before) if before else None, interval_ms=100).run(500)
    rig.hal.load_error = MemoryError("allocating 300000 bytes")
    rig.updater.choice = Choice("m-2", trial=True)
    rig.run(1000)
    assert rig.updater.failed == []
    assert rig.vision.wants_fresh_heap


def test_a_confirmed_model_that_cannot_be_loaded_is_tried_again_ever_more_slowly() -> None:
    rig = Rig(Choice("m-1"))
    rig.hal.load_error = ModelError("model-load-failed", "Failed to allocate tensors")
    rig.run(60_000)
    assert 3 <= len(rig.reported) <= 6
    assert rig.vision.problems() == ["model-failed:model-load-failed"]
    rig.hal.load_error = None
    rig.run(120_000)
    assert rig.vision.problems() == []
    assert rig.results()


def test_a_confirmed_model_that_raises_now_and_then_stays() -> None:
    rig = Rig(Choice("m-1"), interval_ms=100).run(500)
    rig.hal.loaded[0].behaviour["raises"] = "Invoke failed"
    rig.run(150)
    del rig.hal.loaded[0].behaviour["raises"]
    rig.run(1000)
    assert len(rig.hal.loaded) == 1
    assert rig.reported[0] == ("model", "Invoke failed")


def test_a_confirmed_model_that_only_raises_is_loaded_again() -> None:
    rig = Rig(Choice("m-1"), interval_ms=100).run(500)
    rig.hal.loaded[0].behaviour["raises"] = "Invoke failed"
    rig.run(1000)
    assert rig.vision.problems() == ["model-failed:model-load-failed"]
    rig.run(6000)
    assert len(rig.hal.loaded) == 2
    assert rig.vision.problems() == []


def test_a_trial_is_not_held_up_by_a_long_interval() -> None:
    rig = Rig(Choice("m-2", trial=True), interval_ms=3_600_000).run(6000)
    assert len(rig.updater.frames) >= 5


# --- the sensor -------------------------------------------------------------------------------------------


def test_a_sensor_that_is_missing_is_said_and_tried_ever_more_slowly() -> None:
    rig = Rig(Choice("m-1"), interval_ms=100)
    rig.hal.camera_error = RuntimeError("Failed to detect the image sensor or image sensor is detached.")
    rig.run(300_000)
    assert rig.vision.problems() == ["no-camera"]
    assert 8 <= rig.hal.captures <= 12
    rig.hal.camera_error = None
    rig.run(vision_module._EYE_RETRY_MAX_MS + 1000)
    assert rig.vision.problems() == []
    assert rig.results()


def test_one_lost_frame_is_no_missing_sensor() -> None:
    rig = Rig(Choice("m-1"), interval_ms=100).run(500)
    rig.hal.camera_error = RuntimeError("Frame capture has timed out.")
    rig.run(100)
    rig.hal.camera_error = None
    assert rig.vision.problems() == []
    rig.run(2000)
    assert rig.reported == [("camera", "Frame capture has timed out.")]


def test_a_sensor_that_fails_is_not_held_against_a_model_on_trial() -> None:
    rig = Rig(Choice("m-2", trial=True), interval_ms=100)
    rig.hal.camera_error = OSError("no frame")
    rig.run(30_000)
    assert rig.updater.failed == []
    assert rig.updater.frames == []
