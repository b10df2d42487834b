"""A broker's side of one connection that sends as fast as it is acknowledged, or at a given rate.

    python -m benchmarks.stream CAMERAS COUNT WINDOW FIRST RATE

It speaks just enough MQTT 3.1.1 to feed one subscriber at QoS 1 with a given window, so that what is measured is
the subscriber and not a broker that shares its processor.
"""

import json
import socket
import sys
import time

PREFIX = "fleet/v1"
TICK = 0.001  # seconds between two looks at the clock


def messages(cameras: int, count: int, first: int = 1) -> list[bytes]:
    """`count` PUBLISH packets: results of `cameras` cameras in turn, each camera's seq rising from `first`."""
    packets = []
    for n in range(count):
        camera, seq = n % cameras, first + n // cameras
        body = {
            "boot": f"{camera:016x}",
            "seq": seq,
            "up_ms": seq * 90,
            "release": "model-7",
            "results": [{"label": "blue ball", "score": 0.9871, "inference_ms": 74, "frame": seq, "dt": -3}],
        }
        topic = f"{PREFIX}/cam-{camera}/up/result".encode()
        payload = json.dumps(body, separators=(",", ":")).encode()
        mid = n % 65535 + 1
        rest = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + payload
        packets.append(b"\x32" + _length(len(rest)) + rest)
    return packets


def accept(listener: socket.socket) -> socket.socket:
    """The first client that subscribes."""
    link, _ = listener.accept()
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _until(link, 0x10)
    link.sendall(b"\x20\x02\x00\x00")
    subscribe = _until(link, 0x80)
    link.sendall(b"\x90\x03" + subscribe[2:4] + b"\x01")
    return link


def feed(link: socket.socket, packets: list[bytes], window: int) -> float:
    """Sends all of it; the seconds from the first packet to the last acknowledgement."""
    sent = acknowledged = 0
    rest = b""
    began = time.perf_counter()
    while acknowledged < len(packets):
        room = min(window - (sent - acknowledged), len(packets) - sent)
        if room:
            link.sendall(b"".join(packets[sent : sent + room]))
            sent += room
        rest += link.recv(65536)
        rest, acks = _count_acks(rest)
        acknowledged += acks
    return time.perf_counter() - began


def pace(link: socket.socket, packets: list[bytes], rate: float) -> list[float]:
    """Sends so many a second; for each message the seconds until it was acknowledged, which is after its commit."""
    sent_at: list[float] = []
    waited: list[float] = []
    rest = b""
    link.settimeout(TICK)
    began = time.perf_counter()
    while len(waited) < len(packets):
        now = time.perf_counter()
        due = min(len(packets), int((now - began) * rate) + 1)
        if due > len(sent_at):
            link.settimeout(None)
            link.sendall(b"".join(packets[len(sent_at) : due]))
            link.settimeout(TICK)
            # Each counts from when it should have gone, so that a stall is not hidden.
            sent_at += [began + n / rate for n in range(len(sent_at), due)]
        try:
            rest += link.recv(65536)
        except TimeoutError:
            continue
        rest, acks = _count_acks(rest)
        now = time.perf_counter()
        waited += [now - at for at in sent_at[len(waited) : len(waited) + acks]]
    return waited


def _count_acks(data: bytes) -> tuple[bytes, int]:
    """PUBACKs in `data`; other packets (the subscriber's own messages) are passed over."""
    at = count = 0
    while at + 2 <= len(data):
        if data[at] == 0x40:
            if at + 4 > len(data):
                break
            count += 1
            at += 4
            continue
        size, here, shift = 0, at + 1, 0
        while here < len(data):
            byte = data[here]
            here += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        else:
            break
        if here + size > len(data):
            break
        at = here + size
    return data[at:], count


def _until(link: socket.socket, kind: int) -> bytes:
    while True:
        packet = link.recv(4096)
        if not packet:
            raise ConnectionError("the client went away")
        if packet[0] & 0xF0 == kind:
            return packet


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = size >> 7, size & 127
        out.append(low | 128 if size else low)
        if not size:
            return bytes(out)


def main() -> None:
    cameras, count, window, first, rate = map(int, sys.argv[1:6])
    packets = messages(cameras, count, first)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        with accept(listener) as link:
            if not rate:
                print(feed(link, packets, window), flush=True)
                return
            waited = sorted(pace(link, packets, rate))
            p50, p99 = (waited[int(len(waited) * share)] * 1000 for share in (0.5, 0.99))
            print(json.dumps({"p50_ms": p50, "p99_ms": p99}), flush=True)


if __name__ == "__main__":
    main()
