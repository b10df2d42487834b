"""The HTTP API reads bodies with ceilings on bytes and patience, and runs on a real socket."""

import asyncio
import concurrent.futures
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetd.domain.records import Role
from fleetd.errors import (
    UnavailableError,
)
from fleetd.protocol.limits import MANIFEST_BYTES
from fleetd.web.app import PREFIX
from fleetd.web.gate import ENCODING_BYTES, ENCODINGS, JSON_BYTES, UPLOAD_BYTES, Gate
from fleetd.web.server import Server, serve
from tests.integration.api_rig import Rig, error_of, running_rig, upload

VIEWER, OPERATOR, ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


@pytest.fixture(scope="module")
def still_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Shared by tests that do not mind what others left."""
    with running_rig(tmp_path_factory.mktemp("still")) as rig:
        rig.enrol("cam-1")
        yield rig


def asgi(
    rig: Rig,
    chunks: AsyncIterator[bytes],
    path: str,
    kind: str,
    app: Any = None,
    length: tuple[bytes, bytes] = (b"transfer-encoding", b"chunked"),
) -> tuple[int, int]:
    """Status, and how many chunks were taken, for a body that comes in pieces of unknown total."""
    taken = 0
    status = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        try:
            chunk = await anext(chunks)
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}
        taken += 1
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PREFIX + path,
        "raw_path": (PREFIX + path).encode(),
        "query_string": b"",
        "root_path": "",
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 5),
        "headers": [
            (b"host", b"localhost"),
            length,
            (b"content-type", kind.encode()),
            (b"authorization", f"Bearer {rig.tokens[ADMIN]}".encode()),
        ],
    }
    asyncio.run((app or rig.app)(scope, receive, send))
    return status, taken


async def endless(first: bytes, chunk: bytes) -> AsyncIterator[bytes]:
    yield first
    while True:
        yield chunk


def part(name: str) -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode()


MULTIPART: Final = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("path", "kind", "limit"),
    [("/cameras", "application/json", JSON_BYTES), ("/releases", MULTIPART, UPLOAD_BYTES)],
)
def test_a_body_that_declares_too_much_is_refused_unread(
    still_rig: Rig, path: str, kind: str, limit: int
) -> None:
    length = b"content-length", str(limit + 1).encode()
    assert asgi(still_rig, endless(b"x", b"x"), path, kind, length=length) == (413, 0)


def test_an_endless_json_body_is_cut_off_at_the_limit(still_rig: Rig) -> None:
    chunk = b"y" * 4096
    status, taken = asgi(still_rig, endless(b'{"name": "', chunk), "/cameras", "application/json")
    assert status == 413
    assert taken <= JSON_BYTES // len(chunk) + 2


def test_an_endless_manifest_is_cut_off_at_the_limit(still_rig: Rig) -> None:
    status, taken = asgi(still_rig, endless(part("manifest"), b"y" * 1024), "/releases", MULTIPART)
    assert status == 413
    assert taken <= MANIFEST_BYTES // 1024 + 3


def test_an_endless_encoding_is_cut_off_at_the_limit(still_rig: Rig) -> None:
    chunk = b"y" * (1 << 20)
    first = part("manifest") + b"m\r\n" + part("encodings")
    status, taken = asgi(still_rig, endless(first, chunk), "/releases", MULTIPART)
    assert status == 413
    assert taken <= ENCODING_BYTES // len(chunk) + 3


def test_more_encodings_than_a_manifest_can_name_are_refused(still_rig: Rig) -> None:
    answer = still_rig.operator.post("/releases", files=upload(b"m", *([b"e"] * (ENCODINGS + 1))))
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "too_large"


def test_an_endless_part_header_is_cut_off(still_rig: Rig) -> None:
    status, taken = asgi(
        still_rig, endless(b"--x\r\nContent-Disposition: ", b"y" * 512), "/releases", MULTIPART
    )
    assert status == 413
    assert taken <= 4


def test_a_body_that_stops_coming_is_given_up(rig: Rig) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield b'{"name": '
        await asyncio.sleep(60)
        yield b'"late"}'

    impatient = Gate(rig.app, allowed_hosts=[], body_pause_s=0.05)
    started = time.monotonic()
    status, _ = asgi(rig, stalling(), "/cameras", "application/json", impatient)
    assert status == 408
    assert time.monotonic() - started < 5


def test_a_body_that_trickles_is_given_up_when_its_time_is_over(rig: Rig) -> None:
    async def trickling() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    impatient = Gate(rig.app, allowed_hosts=[], body_pause_s=1.0, body_s=0.2)
    status, taken = asgi(rig, trickling(), "/cameras", "application/json", impatient)
    assert status == 408
    assert taken < 20


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", MULTIPART),
        (b"--x--\r\n", MULTIPART),
        (b"garbage", MULTIPART),
        (part("manifest") + b"m\r\n--x--\r\n", MULTIPART),
        (part("encodings") + b"e\r\n--x--\r\n", MULTIPART),
        (
            part("manifest") + b"m\r\n" + part("manifest") + b"m\r\n" + part("encodings") + b"e\r\n--x--\r\n",
            MULTIPART,
        ),
        (part("../../etc/passwd") + b"m\r\n--x--\r\n", MULTIPART),
        (part("manifest") + b"m\r\n" + part("encodings") + b"cut off", MULTIPART),
        (part("manifest") + b"m\r\n" + part("encodings") + b"e\r\n--x\r\n", MULTIPART),
        (part("manifest") + b"m\r\n" + part("encodings") + b"e\r\n--x--\r\n", "multipart/form-data"),
        (part("manifest") + b"m\r\n--x--\r\n", "multipart/form-data; boundary=" + "x" * 100),
        (b"--x\r\n\r\nno header\r\n--x--\r\n", MULTIPART),
    ],
)
def test_an_upload_of_any_other_form_stores_nothing(rig: Rig, body: bytes, kind: str) -> None:
    answer = rig.operator.post("/releases", content=body, headers={"Content-Type": kind})
    assert answer.status_code in (415, 422), answer.text
    error_of(answer)
    assert rig.viewer.get("/releases").json() == []


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            [part("manifest"), part("encodings"), b"--x", b"--x--", b"\r\n", b":", b"\x00", b"m" * 50]
        ),
        max_size=12,
    )
)
def test_any_multipart_bytes_are_stored_or_refused_in_shape(still_rig: Rig, pieces: list[bytes]) -> None:
    answer = still_rig.operator.post(
        "/releases", content=b"".join(pieces), headers={"Content-Type": MULTIPART}
    )
    assert answer.status_code in (413, 415, 422), answer.text
    error_of(answer)


def test_uploads_wait_for_each_other_so_that_memory_for_one_is_enough(rig: Rig) -> None:
    asyncio.run(rig.app.state.uploading.acquire())
    try:
        answer = rig.operator.post("/releases", files=upload(b"m", b"e"))
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
    finally:
        rig.app.state.uploading.release()
    assert rig.operator.post("/releases", files=upload(b"m", b"e")).status_code == 422


@pytest.fixture
def server(rig: Rig) -> Iterator[Server]:
    server = serve(rig.app, "127.0.0.1", 0)
    server.start()
    yield server
    server.stop()


def test_the_server_answers_on_its_socket_and_frees_it_at_the_end(rig: Rig) -> None:
    server = serve(rig.app, "127.0.0.1", 0)
    server.start()
    try:
        assert httpx.get(f"{server.url}/api/v1/health", trust_env=False).json() == {"ok": True}
        headers = {"Authorization": f"Bearer {rig.tokens[VIEWER]}"}
        answer = httpx.get(f"{server.url}/api/v1/cameras", headers=headers, trust_env=False)
        assert answer.json() == []
        assert "server" not in answer.headers
    finally:
        server.stop()
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/api/v1/health", trust_env=False)
    again = serve(rig.app, "127.0.0.1", server.port)
    again.stop()


def test_a_port_in_use_is_a_clear_error_before_anything_runs(rig: Rig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"Port {port} on 127.0.0.1 is in use") as caught:
            serve(rig.app, "127.0.0.1", port)
    assert caught.value.facts["port"] == port


def test_an_address_of_another_machine_is_a_clear_error(rig: Rig) -> None:
    with pytest.raises(UnavailableError, match="cannot be used"):
        serve(rig.app, "203.0.113.1", 0)


def test_it_listens_only_where_it_was_told(server: Server) -> None:
    assert server.host == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", server.port), timeout=2)


def test_idle_connections_are_closed_and_do_not_hold_up_others(rig: Rig) -> None:
    server = serve(rig.app, "127.0.0.1", 0, first_request_s=1.5)
    server.start()
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(200)]
    try:
        idle[0].sendall(b"GET /api/v1/health HTT")
        assert httpx.get(f"{server.url}/api/v1/health", trust_env=False, timeout=30).status_code == 200
        for connection in idle:
            connection.settimeout(30)
            assert connection.recv(1) == b"", "closed without an answer"
    finally:
        for connection in idle:
            connection.close()
        server.stop()


def test_many_readers_and_writers_at_once_are_all_answered(rig: Rig, server: Server) -> None:
    headers = {"Authorization": f"Bearer {rig.tokens[ADMIN]}"}

    def enrol(number: int) -> int:
        with httpx.Client(
            base_url=f"{server.url}/api/v1", headers=headers, trust_env=False, timeout=30
        ) as client:
            created = client.post("/cameras", json={"name": f"cam-{number}"}).status_code
            return created if client.get("/cameras").status_code == 200 else 0

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert set(pool.map(enrol, range(48))) == {201}
    entries = rig.access.audit(limit=1000)
    assert sum(entry["action"] == "camera.enrol" for entry in entries) == 48


def test_a_request_that_is_no_http_is_refused_without_a_trace(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as link,
    ):
        link.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http\r\n\r\n")
        answer = link.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"Traceback" not in answer


def test_a_later_request_that_never_completes_its_head_is_closed_too(rig: Rig) -> None:
    server = serve(rig.app, "127.0.0.1", 0, first_request_s=0.5)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"ok":true}'):  # head and body may come one by one
            piece = link.recv(4096)
            assert piece, answer
            answer += piece
        assert b"200 OK" in answer
        link.sendall(b"GET /api")
        assert link.recv(4096) == b"", "closed without an answer"
    server.stop()


def test_sockets_beyond_those_that_are_told_so_are_cut_off(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetd.web.server.CONNECTIONS", 5)
    monkeypatch.setattr("fleetd.web.server.SPARE_CONNECTIONS", 5)
    server = serve(rig.app, "127.0.0.1", 0)
    server.start()
    links = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(15)]
    try:
        links[-1].settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert links[-1].recv(1) == b""
        links[0].sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"503" in links[0].recv(4096)
    finally:
        for link in links:
            link.close()
        server.stop()
