"""Captures, classifies and batches results. Uses whatever model the updater says, and tells it how that goes.

    vision = Vision(hal, settings, updater, put, report)
    vision.step() -> bool       True when a frame was taken: call again soon
    vision.flush()              send what is batched now
    vision.problems()           words for `up/status`
    vision.telemetry()          fields of `up/telemetry`; starts the next period

`put(channel, body)` is the outbox's, `report(where, error)` makes an event of an exception. Frames are taken every
`interval_ms` whatever the network does. A result is the model's best label and its score as the model gave them,
clipped to 0..1: the release's threshold is not applied here, so that whoever reads the results can choose another.
With `publish` "on_change" only frames with another label than the one before are sent, and one a minute.

What goes wrong stays here: a sensor that fails is set up again after 1 s, doubling to 60 s; a model that cannot be
loaded or raises is reported and, when it is on trial, given back; otherwise it is loaded again after 5 s, doubling
to 10 minutes. A heap that has been in use is in pieces: a model that does not fit there, although it was not the
one that this boot began with, asks for a restart (`wants_fresh_heap`) and gets another chance after it.

RAM BUDGET: labels (at most 17 KB for 256 of the longest), at most RESULTS_PER_MESSAGE small dicts, 64 integers.
"""

import gc

from camera_agent import protocol
from camera_agent.heap import const, forget, load
from camera_agent.models import ModelError

_TRIAL_INTERVAL_MS = const(1000)  # at most, so that a trial does not outlast the updater's patience
_AT_LEAST_MS = const(60_000)  # between two results with "on_change"
_LABELS_BYTES = protocol.LABELS * (protocol.LABEL_BYTES + 2)
_EYE_RETRY_MS = const(1000)
_EYE_RETRY_MAX_MS = const(60_000)
_LOAD_RETRY_MS = const(5000)
_LOAD_RETRY_MAX_MS = const(600_000)
_RAISES_MAX = const(3)  # exceptions in a row before the model is loaded again
_SAMPLES = const(64)  # inference times kept for the median


def read_labels(content, files):
    """The lines of the release's labels.txt. ModelError when there is none or it cannot be read."""
    entry = None
    for each in files:
        if each["path"] == "labels.txt":
            entry = each
    if entry is None:
        raise ModelError("labels-mismatch", "the release holds no labels.txt")
    if entry["size"] > _LABELS_BYTES:
        raise ModelError("labels-mismatch", "labels.txt is too long")
    text = bytearray(entry["size"])
    if content.readinto(entry["offset"], memoryview(text)) != len(text):
        raise ModelError("storage-error", "labels.txt is cut short")
    try:
        return parse_labels(str(text, "utf-8"))
    except UnicodeError:
        raise ModelError("labels-mismatch", "labels.txt is not UTF-8") from None


def parse_labels(text):
    """One label per line; carriage returns and empty lines at the end are none."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def clipped(score):
    """A score as the contract wants it: 0..1, four digits; what is not a number is 0."""
    return round(score, 4) if 0.0 < score < 1.0 else (1.0 if score >= 1.0 else 0.0)


class Vision:
    """See the module's docstring."""

    def __init__(self, hal, settings, updater, put, report):
        self._hal = hal
        self._settings = settings
        self._updater = updater
        self._put = put
        self._report = report
        self._choice = None
        self._boot_choice = None  # the one that found the heap unused
        self._has_begun = False
        self._model = None
        self._labels = []
        self._raised = 0  # exceptions of the model in a row
        self._load_at = 0
        self._load_retry_ms = _LOAD_RETRY_MS
        self._eye_at = 0
        self._eye_retry_ms = _EYE_RETRY_MS
        self._eye_failed = 0  # failures in a row
        self._due = 0
        self._batch = []
        self._batch_since = 0
        self._last = None  # label that was sent last, and when
        self._last_at = 0
        self.failure = None  # why the chosen model is not in use, as a reason word
        self.frames = 0
        self.wants_fresh_heap = False
        self._period_at = hal.ticks_ms()
        self._period_frames = 0
        self._times = []
        self._time_max = 0

    # --- what others ask ----------------------------------------------------------------------------------

    @property
    def has_eye(self):
        """False after the sensor has failed twice in a row."""
        return self._eye_failed < 2

    @property
    def model(self):
        """The loaded model or None. Others may use it while step() is not called."""
        return self._model

    @property
    def has_model(self):
        """Whether frames can be classified."""
        return self._model is not None

    def problems(self):
        """What a person has to know, as words."""
        found = [] if self.has_eye else ["no-camera"]
        if self.failure:
            found.append("model-failed:" + self.failure)
        elif self._model is None:
            found.append("no-model")
        return found

    def telemetry(self):
        """Rates since the last call."""
        now = self._hal.ticks_ms()
        known = {"frames": self.frames}
        if now > self._period_at:
            known["fps"] = round(1000 * self._period_frames / (now - self._period_at), 3)
        if self._times:
            self._times.sort()
            known["inference_ms"] = self._times[len(self._times) // 2]
            known["inference_ms_max"] = self._time_max
        self._period_at = now
        self._period_frames = 0
        self._times = []
        self._time_max = 0
        return known

    # --- the loop -----------------------------------------------------------------------------------------

    def step(self):
        """Change the model if the updater has another one; take a frame when one is due."""
        now = self._hal.ticks_ms()
        choice = self._updater.model_to_use()
        if not self._has_begun:
            self._has_begun = True
            self._boot_choice = choice
        if choice is not self._choice:
            self._use(choice)
        elif choice is not None and self._model is None and now >= self._load_at:
            self._load()
        if self._batch and now - self._batch_since >= self._settings["batch_ms"]:
            self.flush()
        now = self._hal.ticks_ms()  # loading takes a while
        if self._model is None or not self._is_due(now):
            return False
        frame = self._capture(now)
        if frame is not None:
            self._classify(frame, now)
        return True

    def flush(self):
        """Send the batch."""
        batch = self._batch
        self._batch = []
        if batch:
            self._send(batch)

    def _is_due(self, now):
        """Whether it is time for a frame; if so, the next one's time is set."""
        interval = self._settings["interval_ms"]
        if self._choice.trial:
            interval = min(interval, _TRIAL_INTERVAL_MS)
        if now < self._eye_at or 0 < self._due - now <= interval:
            return False
        self._due += interval
        if not 0 < self._due - now <= interval:  # the first frame, a long pause, or another interval
            self._due = now + interval
        return True

    # --- the model ----------------------------------------------------------------------------------------

    def _use(self, choice):
        self.flush()  # these were made with the model before
        self._drop()
        self._choice = choice
        self.failure = None
        self._load_retry_ms = _LOAD_RETRY_MS
        self._last = None
        if choice is not None:
            self._load()

    def _drop(self):
        if self._model is not None:
            self._hal.free_model(self._model)
            self._model = None
        self._labels = []
        gc.collect()

    def _load(self):
        choice = self._choice
        try:
            labels = read_labels(choice.content, choice.files)
            model = self._hal.load_model(choice.content, choice.files, choice.slot)
            if model.output_len != len(labels):
                self._hal.free_model(model)
                detail = "%d labels, %d outputs" % (len(labels), model.output_len)
                raise ModelError("labels-mismatch", detail)
            if choice.trial and choice.golden:
                self._try_golden(model, choice)
        except ModelError as error:
            self._give_up(error, error.reason, error.detail)
        except MemoryError as error:
            self._give_up(error, "out-of-memory", None)
        except Exception as error:
            self._give_up(error, "model-load-failed", "%s: %s" % (type(error).__name__, error))
        else:
            height, width, channels = model.input_shape
            self._hal.prepare(width, height, channels)
            self._model = model
            self._labels = labels
            self._raised = 0
            self.failure = None

    def _try_golden(self, model, choice):
        """The model has to answer as it did where it was made. A model that does not is given back."""
        try:
            load("golden").check(model, choice.content, choice.files, choice.golden, self._hal.feed)
        except BaseException:
            self._hal.free_model(model)
            raise
        finally:
            forget("golden")

    def _give_up(self, error, reason, detail):
        """The model cannot be used now."""
        self.flush()
        self._drop()
        self.failure = reason
        self._load_at = self._hal.ticks_ms() + self._load_retry_ms
        self._load_retry_ms = min(2 * self._load_retry_ms, _LOAD_RETRY_MAX_MS)
        if reason == "out-of-memory" and self._choice is not self._boot_choice:
            self.wants_fresh_heap = True
            self._report("model", error)
        elif not self._updater.trial_failed(reason, detail):
            self._report("model", error)

    # --- a frame ------------------------------------------------------------------------------------------

    def _capture(self, now):
        try:
            frame = self._hal.capture()
        except Exception as error:  # drivers raise RuntimeError, OSError, MemoryError
            self._eye_failed += 1
            self._eye_at = now + self._eye_retry_ms
            self._eye_retry_ms = min(2 * self._eye_retry_ms, _EYE_RETRY_MAX_MS)
            self._report("camera", error)
            return None
        self._eye_failed = 0
        self._eye_retry_ms = _EYE_RETRY_MS
        return frame

    def _classify(self, frame, now):
        began = self._hal.ticks_ms()
        try:
            scores = self._model.classify(frame)
        except Exception as error:
            self._on_raise(error)
            return
        spent = self._hal.ticks_ms() - began
        self._raised = 0
        self.frames += 1
        self._period_frames += 1
        self._time_max = max(self._time_max, spent)
        if len(self._times) < _SAMPLES:
            self._times.append(spent)
        else:
            self._times[self.frames % _SAMPLES] = spent
        self._updater.trial_frame_ok(spent)
        self._add(scores, spent, now)

    def _on_raise(self, error):
        self._raised += 1
        is_memory = isinstance(error, MemoryError)
        detail = "while classifying: %s: %s" % (type(error).__name__, error)
        if self._choice.trial:
            self._give_up(error, "out-of-memory" if is_memory else "trial-crashed", detail)
        elif self._raised >= _RAISES_MAX:
            self._give_up(error, "out-of-memory" if is_memory else "model-load-failed", detail)
        else:
            self._report("model", error)

    def _add(self, scores, spent, now):
        best = 0
        for n in range(1, len(scores)):
            if scores[n] > scores[best]:
                best = n
        label = self._labels[best]
        if self._settings["publish"] == "on_change":
            if label == self._last and now - self._last_at < _AT_LEAST_MS:
                return
            self._last = label
            self._last_at = now
        if not self._batch:
            self._batch_since = now
        result = {
            "label": label,
            "score": clipped(scores[best]),
            "dt": now,  # becomes relative when it is sent
            "inference_ms": spent,
            "frame": self.frames,
        }
        if self._settings["scores"]:
            result["scores"] = [clipped(score) for score in scores]
        self._batch.append(result)
        if len(self._batch) >= self._settings["batch"]:
            self.flush()

    def _send(self, batch):
        now = self._hal.ticks_ms()
        told = []
        for result in batch:
            result = dict(result)
            result["dt"] -= now  # to the time of the message, which is set next
            told.append(result)
        if self._put("result", {"release": self._choice.release, "results": told}):
            return
        if len(batch) > 1:  # too large: many scores
            self._send(batch[: len(batch) // 2])
            self._send(batch[len(batch) // 2 :])
        elif batch[0].pop("scores", None) is not None:
            self._send(batch)
