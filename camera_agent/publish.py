"""Which of the frames' answers are told, and when: the setting `publish`.

    publisher = Publisher(hal, settings, put)
    publisher.add(release, labels, scores, frame, now, spent_us)    # one frame was classified
    publisher.step(now)                                        # sends what is due
    publisher.flush()                                          # sends what is there; also before the model changes

    every        each frame, in batches of `batch` or after `batch_ms`
    on_change    another label than before that has been seen on `change_frames` frames in a row; and one a minute
    interval     the newest answer, every `publish_s` seconds
    summary      every `publish_s` seconds for each label: on how many frames, and the mean score

With `threshold` an answer with a lower score is told as the label `unknown`; its score stays what it is.

RAM BUDGET: at most RESULTS_PER_MESSAGE small dicts; for `summary` two numbers per label.
"""

from camera_agent.heap import const

UNKNOWN = "unknown"
_AT_LEAST_MS = const(60_000)  # between two results with "on_change"


def clipped(score):
    """A score as the contract wants it: 0..1, four digits; what is not a number is 0."""
    return round(score, 4) if 0.0 < score < 1.0 else (1.0 if score >= 1.0 else 0.0)


class Publisher:
    """See the module's docstring."""

    def __init__(self, hal, settings, put):
        """`put(channel, body)`: the outbox's."""
        self._hal = hal
        self._settings = settings
        self._put = put
        self._release = None
        self._batch = []
        self._since = 0  # when the first of the batch, or of the summary, came
        self._last = None  # the label that was told last, and when
        self._last_at = 0
        self._other = None  # another one, seen so often in a row
        self._others = 0
        self._counts = {}  # label -> [frames, sum of scores]
        self._newest = None
        self._mode = None

    def add(self, release, labels, scores, frame, now, spent_us):
        """Frame number `frame`, taken at `now` (ms), was classified. Answers label and score as they are told."""
        mode = self._settings["publish"]
        if release != self._release or mode != self._mode:
            self.flush()
            self._release = release
            self._mode = mode
            self._last = self._other = None
        best = 0
        for n in range(1, len(scores)):
            if scores[n] > scores[best]:
                best = n
        label = labels[best]
        threshold = self._settings["threshold"]
        if threshold is not None and not scores[best] >= threshold:
            label = UNKNOWN
        score = clipped(scores[best])
        if mode != "on_change" or self._is_change(label, now):
            self._note(mode, label, score, scores, frame, now, spent_us)
        return label, score

    def _note(self, mode, label, score, scores, frame, now, spent_us):
        if not self._batch and not self._counts and self._newest is None:
            self._since = now
        if mode == "summary":
            count = self._counts.setdefault(label, [0, 0.0])
            count[0] += 1
            count[1] += score
            return
        result = {
            "label": label,
            "score": score,
            "dt": now,  # becomes relative when it is sent
            "inference_ms": round(spent_us / 1000, 3),
            "frame": frame,
        }
        if self._settings["scores"]:
            result["scores"] = [clipped(score) for score in scores]
        if mode == "interval":
            self._newest = result
            return
        self._batch.append(result)
        if len(self._batch) >= self._settings["batch"]:
            self.flush()

    def _is_change(self, label, now):
        """Whether this frame is to be told."""
        if label == self._last:
            self._other = None
            if now - self._last_at < _AT_LEAST_MS:
                return False
        else:
            if label != self._other:
                self._other = label
                self._others = 0
            self._others += 1
            if self._others < self._settings["change_frames"]:
                return False
        self._last = label
        self._last_at = now
        self._other = None
        return True

    def step(self, now):
        """Send what is due."""
        if self._batch:
            if now - self._since >= self._settings["batch_ms"]:
                self.flush()
        elif (self._counts or self._newest is not None) and now - self._since >= 1000 * self._settings[
            "publish_s"
        ]:
            self.flush()

    def flush(self):
        """Send what is there."""
        batch = self._batch
        self._batch = []
        if self._newest is not None:
            batch.append(self._newest)
            self._newest = None
        now = self._hal.ticks_ms()
        for label in self._counts:
            count, total = self._counts[label]
            batch.append({"label": label, "score": clipped(total / count), "dt": now, "count": count})
        self._counts = {}
        while batch:
            self._send(batch[:64])
            batch = batch[64:]

    def _send(self, batch):
        now = self._hal.ticks_ms()
        told = []
        for result in batch:
            result = dict(result)
            result["dt"] -= now  # to the time of the message, which is set next
            told.append(result)
        if self._put("result", {"release": self._release, "results": told}):
            return
        if len(batch) > 1:  # too large: many scores
            self._send(batch[: len(batch) // 2])
            self._send(batch[len(batch) // 2 :])
        elif batch[0].pop("scores", None) is not None:
            self._send(batch)
