"""One picture on its way to fleetd: taken with the next frame, sent as a JPEG in pieces through the outbox.

    snap = Snapshot(hal, vision, outbox, why, id_, args)    # `id_`: of the command, or None
    while snap.step(): ...                                     # waits for a frame, then for room; False: over

Each piece is a message on `up/image/<image>/<n>`: one line of JSON, the envelope and what the picture is, and behind
the line end the bytes. So it is kept, repeated and receipted like every other message. A piece is only put in when the
outbox is less than half full, and images are the first to go when it overflows.

RAM BUDGET: 3 KB of code, loaded when there is a picture to send; the JPEG (at most IMAGE_BYTES) and one piece.
"""

from binascii import hexlify
from hashlib import sha256

from camera_agent.heap import const

IMAGE_BYTES = const(131_072)
_PIECE = const(2048)
_FRAME_MS = const(15_000)  # for a frame to come
_SEND_MS = const(120_000)  # for the pieces to find room
_QUALITY = const(70)
_LOWER = const(30)  # when the first attempt is too large


class Snapshot:
    """See the module's docstring."""

    def __init__(self, hal, vision, outbox, why, id_=None, args=None):
        quality = (args or {}).get("quality", _QUALITY)
        self._quality = quality if type(quality) is int and 1 <= quality <= 100 else _QUALITY
        self._hal = hal
        self._vision = vision
        self._outbox = outbox
        self._why = why
        self._id = id_
        self._until = hal.ticks_ms() + _FRAME_MS
        self._has_failed = False
        self._data = None
        self._known = None
        self._sent = 0

    def take(self, frame, label, score):
        """This frame is the one. Never raises."""
        if self._data is not None or self._has_failed:
            return
        try:
            for quality in (self._quality, min(_LOWER, self._quality)):
                data = self._hal.jpeg(frame, quality)
                if len(data) <= IMAGE_BYTES:
                    break
        except Exception as error:  # no memory, or firmware that compresses in another way
            self._hal.say("fleetd agent: snapshot: %s" % error)
            self._has_failed = True
            return
        self._known = {
            "size": len(data),
            "pieces": -(-len(data) // _PIECE),
            "sha256": str(hexlify(sha256(data).digest()), "ascii"),
            "why": self._why,
        }
        if label is not None:
            self._known["label"] = label
            self._known["score"] = score
        release = self._vision.release
        if release:
            self._known["release"] = release
        self._image = str(hexlify(self._hal.urandom(6)), "ascii")
        self._data = data
        self._until = self._hal.ticks_ms() + _SEND_MS

    def step(self):
        """A bounded amount of work; False when it is over."""
        if self._has_failed:
            return self._end("no-picture")
        if self._data is None:
            return self._wait_for_frame()
        if len(self._data) > IMAGE_BYTES or not self._data:
            return self._end("too-large")
        if self._outbox.is_crowded():
            return self._end("no-room") if self._hal.ticks_ms() >= self._until else True
        n = self._sent
        view = memoryview(self._data)[n * _PIECE : (n + 1) * _PIECE]
        if not self._outbox.put("image/%s/%d" % (self._image, n), self._known, view):
            return self._end("no-room")
        self._sent += 1
        return True if self._sent < self._known["pieces"] else self._end(None)

    def _wait_for_frame(self):
        if self._vision.has_model and self._vision.has_eye:
            late = self._hal.ticks_ms() >= self._until
            return self._end("no-picture") if late else True  # the next frame is handed over: take()
        try:
            self._hal.prepare(240, 240, 3)
            frame = self._hal.capture()
        except Exception:
            return self._end("no-picture")
        if frame is not None:
            self.take(frame, None, None)
        elif self._hal.ticks_ms() >= self._until:
            return self._end("no-picture")
        return True

    def _end(self, reason):
        self._data = b""
        if self._id is not None:
            body = {"id": self._id, "ok": reason is None}
            if reason:
                body["reason"] = reason
            else:
                body["data"] = {"image": self._image, "size": self._known["size"], "pieces": self._sent}
            self._outbox.put("reply/snapshot", body)
        return False
