"""Captures, classifies and batches results. Uses whatever model the updater says, and tells it how that goes.

    vision = Vision(hal, settings, updater, put, report)
    vision.step() -> bool       True when a frame was taken: call again soon
    vision.flush()              send what is batched now
    vision.problems()           words for `up/status`
    vision.telemetry()          fields of `up/telemetry`; starts the next period

`put(channel, body)` is the outbox's, `report(where, error)` makes an event of an exception. Frames are taken every
`interval_ms` whatever the network does. A result is the model's best label and its score as the model gave them,
clipped to 0..1: the release's threshold is not applied here, so that whoever reads the results can choose another.
Which results are sent, and when, is in camera_agent/publish.py.

What goes wrong stays here: a sensor that fails is set up again after 1 s, doubling to 60 s; a model that cannot be
loaded or raises is reported and, when it is on trial, given back; otherwise it is loaded again after 5 s, doubling
to 10 minutes. A heap that has been in use is in pieces: a model that does not fit there, although it was not the
one that this boot began with, asks for a restart (`wants_fresh_heap`) and gets another chance after it.

RAM BUDGET: labels (at most 17 KB for 256 of the longest), three times 32 integers.
"""

import gc

from camera_agent import protocol
from camera_agent.heap import const, forget, load
from camera_agent.models import ModelError
from camera_agent.publish import Publisher

_TRIAL_INTERVAL_MS = const(1000)  # at most, so that a trial does not outlast the updater's patience
_LABELS_BYTES = protocol.LABELS * (protocol.LABEL_BYTES + 2)
_EYE_RETRY_MS = const(1000)
_EYE_RETRY_MAX_MS = const(60_000)
_LOAD_RETRY_MS = const(5000)
_LOAD_RETRY_MAX_MS = const(600_000)
_RAISES_MAX = const(3)  # exceptions in a row before the model is loaded again
_SAMPLES = const(32)  # times kept for a median


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


class Vision:
    """See the module's docstring."""

    def __init__(self, hal, settings, updater, put, report):
        self._hal = hal
        self._settings = settings
        self._updater = updater
        self._publisher = Publisher(hal, settings, put)
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
        self._digest = None  # of one picture in each period
        self._is_digest_due = True
        self.on_frame = None  # f(frame, label, score)
        self.failure = None  # why the chosen model is not in use, as a reason word
        self.frames = 0
        self.wants_fresh_heap = False
        self._period_at = hal.ticks_ms()
        self._period_frames = 0
        self._times = []  # microseconds that the model took
        self._captures = []
        self._totals = []
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
    def release(self):
        """Whose answers these are, or None."""
        return self._choice.release if self._choice is not None else None

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
            known["inference_ms"] = _median_ms(self._times)
            known["inference_ms_max"] = round(self._time_max / 1000, 3)
            known["capture_ms"] = _median_ms(self._captures)
            known["frame_ms"] = _median_ms(self._totals)
        if self._digest is not None:
            known["picture"] = {"hash": self._digest}
        self._digest = None
        self._is_digest_due = True
        self._period_at = now
        self._period_frames = 0
        self._times = []
        self._captures = []
        self._totals = []
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
        self._publisher.step(now)
        now = self._hal.ticks_ms()  # loading takes a while
        if self._model is None or not self._is_due(now):
            return False
        began = self._hal.ticks_us()
        frame = self._capture(now)
        if frame is not None:
            self._classify(frame, now, began)
        return True

    def flush(self):
        """Send what is batched."""
        self._publisher.flush()

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

    def _classify(self, frame, now, began):
        captured = self._hal.ticks_us()
        if self._is_digest_due:
            self._is_digest_due = False
            self._digest = self._hal.digest(frame)
        try:
            scores = self._model.classify(frame)
        except Exception as error:
            self._on_raise(error)
            return
        spent = self._hal.ticks_us() - captured
        self._raised = 0
        self.frames += 1
        self._period_frames += 1
        self._time_max = max(self._time_max, spent)
        self._updater.trial_frame_ok(spent // 1000)
        label, score = self._publisher.add(
            self._choice.release, self._labels, scores, self.frames, now, spent
        )
        if self.on_frame is not None:
            self.on_frame(frame, label, score)
        _note(self._times, spent, self.frames)
        _note(self._captures, captured - began, self.frames)
        _note(self._totals, self._hal.ticks_us() - began, self.frames)

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


def _note(samples, value, number):
    """Keep the newest ones."""
    if len(samples) < _SAMPLES:
        samples.append(value)
    else:
        samples[number % _SAMPLES] = value


def _median_ms(samples):
    samples.sort()
    return round(samples[len(samples) // 2] / 1000, 3)
