"""The first packet of an MQTT 3.1.1 connection, read before any broker sees it. Pure: bytes in, an answer out."""

from dataclasses import dataclass
from typing import Final

CONNECT: Final = 0x10
LONGEST: Final = 20 * 1024  # bytes of a CONNECT: a last will of 16 KB with everything around it
ACCEPTED, BAD_VERSION, REFUSED = 0, 1, 5  # the answers to it that are used here

_RESERVED, _CLEAN, _WILL, _PASSWORD, _USER = 0x01, 0x02, 0x04, 0x40, 0x80
_WILL_BITS: Final = 0x3C  # will, its QoS and retain flag


class ConnectError(ValueError):
    """That is no CONNECT packet that can be answered."""


@dataclass(frozen=True, slots=True)
class Connect:
    """What a CONNECT packet says. Without a user name `user` is empty."""

    level: int
    flags: int
    keepalive: int
    client_id: str
    user: str
    password: bytes
    will_topic: str | None
    will: bytes

    def as_user(self) -> bytes:
        """The packet as the broker is to see it: the account's name is the client id, the password is left out."""
        parts = [_field(self.user.encode())]
        if self.will_topic is not None:
            parts += [_field(self.will_topic.encode()), _field(self.will)]
        parts.append(_field(self.user.encode()))
        flags = (self.flags & (_CLEAN | _WILL_BITS)) | _USER
        body = _field(b"MQTT") + bytes((self.level, flags)) + self.keepalive.to_bytes(2) + b"".join(parts)
        return bytes((CONNECT,)) + _length(len(body)) + body


def connack(code: int) -> bytes:
    """The answer with this code."""
    return bytes((0x20, 2, 0, code))


def read_connect(body: bytes) -> Connect:
    """A CONNECT packet from what follows its length. ConnectError when it is not one.

    Of MQTT 5 only the level is read: the rest looks different there.
    """
    if body[:6] != b"\x00\x04MQTT":
        if body[:8] == b"\x00\x06MQIsdp":
            return _unread(3)
        raise ConnectError("not MQTT")
    if len(body) < 10:
        raise ConnectError("cut off")
    level, flags = body[6], body[7]
    if level != 4:
        return _unread(level)
    if flags & _RESERVED or (not flags & _WILL and flags & (_WILL_BITS ^ _WILL)) or flags & 0x18 == 0x18:
        raise ConnectError("flags that cannot be")
    if flags & _PASSWORD and not flags & _USER:
        raise ConnectError("a password without a user")
    at = 10
    fields: list[bytes] = []
    wanted = 1 + 2 * bool(flags & _WILL) + bool(flags & _USER) + bool(flags & _PASSWORD)
    for _ in range(wanted):
        size = int.from_bytes(body[at : at + 2])
        fields.append(body[at + 2 : at + 2 + size])
        if at + 2 + size > len(body):
            raise ConnectError("cut off")
        at += 2 + size
    if at != len(body):
        raise ConnectError("more than a CONNECT packet")
    client_id = _text(fields.pop(0))
    will_topic = _text(fields.pop(0)) if flags & _WILL else None
    will = fields.pop(0) if flags & _WILL else b""
    user = _text(fields.pop(0)) if flags & _USER else ""
    password = fields.pop(0) if flags & _PASSWORD else b""
    return Connect(4, flags, int.from_bytes(body[8:10]), client_id, user, password, will_topic, will)


def _unread(level: int) -> Connect:
    return Connect(level, 0, 0, "", "", b"", None, b"")


def _text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ConnectError("text that is no UTF-8") from error
    if "\x00" in text:
        raise ConnectError("text with a NUL")
    return text


def _field(raw: bytes) -> bytes:
    return len(raw).to_bytes(2) + raw


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = divmod(size, 128)
        out.append(low | (128 if size else 0))
        if not size:
            return bytes(out)
