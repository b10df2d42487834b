"""The HTTP API: who may do what, one shape for every error, limits while reading, nothing hostile gets through."""

import asyncio
import concurrent.futures
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetd.bundles.signing import OperatorKey
from fleetd.domain.records import Role
from fleetd.errors import (
    AccessError,
    BrokerError,
    ConflictError,
    FleetError,
    InvalidError,
    SettingsError,
    StoreError,
    UnavailableError,
    UnknownCameraError,
)
from fleetd.protocol.limits import MANIFEST_BYTES
from fleetd.store.landing import DeadLetter
from fleetd.web.app import PREFIX
from fleetd.web.errors import status_of
from fleetd.web.gate import ENCODING_BYTES, ENCODINGS, JSON_BYTES, Gate, host_name
from fleetd.web.server import Server, serve
from tests.integration.api_rig import BASE, START, Rig, running_rig

ROOT: Final = Path(__file__).resolve().parents[2]
VIEWER, OPERATOR, ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN
NOBODY: Final = "nobody"

# Every address: the least role, and what an allowed request to it answers in the prepared rig.
TABLE: Final[list[tuple[str, str, str, Any, int]]] = [
    ("GET", "/health", NOBODY, None, 200),
    ("GET", "/status", VIEWER, None, 200),
    ("GET", "/cameras", VIEWER, None, 200),
    ("POST", "/cameras", ADMIN, {"name": "cam-new"}, 201),
    ("GET", "/cameras/cam-1", VIEWER, None, 200),
    ("PATCH", "/cameras/cam-1", OPERATOR, {"add_tags": ["line-3"]}, 200),
    ("DELETE", "/cameras/cam-2", ADMIN, None, 204),
    ("POST", "/cameras/cam-1/secret", ADMIN, None, 200),
    ("POST", "/cameras/cam-1/commands/identify", OPERATOR, {"ttl_s": 30}, 202),
    ("GET", "/commands/{command}", VIEWER, None, 200),
    ("GET", "/cameras/cam-1/leds", VIEWER, None, 200),
    ("POST", "/cameras/cam-1/leds", OPERATOR, {"color": "green", "pattern": "blink"}, 204),
    ("GET", "/results", VIEWER, None, 200),
    ("GET", "/results/summary", VIEWER, None, 200),
    ("GET", "/telemetry", VIEWER, None, 200),
    ("GET", "/events", VIEWER, None, 200),
    ("GET", "/leds", VIEWER, None, 200),
    ("GET", "/unknown-cameras", VIEWER, None, 200),
    ("GET", "/dead-letters", VIEWER, None, 200),
    ("GET", "/keys", VIEWER, None, 200),
    ("POST", "/keys", ADMIN, {"public": "{other_key}", "name": "other"}, 201),
    ("DELETE", "/keys/{spare_key_id}", ADMIN, None, 204),
    ("GET", "/releases", VIEWER, None, 200),
    ("GET", "/releases/next", VIEWER, None, 200),
    ("POST", "/releases", OPERATOR, "upload", 201),
    ("GET", "/releases/{release}", VIEWER, None, 200),
    ("GET", "/releases/{release}/manifest", VIEWER, None, 200),
    ("POST", "/rollouts/preview", OPERATOR, {"release": "{release}", "target": "all"}, 200),
    ("POST", "/rollouts", OPERATOR, {"release": "{release}", "target": "id=cam-1"}, 201),
    ("GET", "/rollouts", VIEWER, None, 200),
    ("GET", "/rollouts/{rollout}", VIEWER, None, 200),
    ("POST", "/rollouts/{rollout}/pause", OPERATOR, None, 200),
    ("POST", "/rollouts/{rollout}/resume", OPERATOR, None, 200),
    ("POST", "/rollouts/{rollout}/cancel", OPERATOR, None, 200),
    ("POST", "/rollouts/{rollout}/retry", OPERATOR, None, 422),  # nothing has failed in it
    ("GET", "/tokens", ADMIN, None, 200),
    ("POST", "/tokens", ADMIN, {"name": "newcomer", "role": "viewer"}, 201),
    ("DELETE", "/tokens/spare", ADMIN, None, 204),
    ("GET", "/audit", ADMIN, None, 200),
]
ROLE_NAMES: Final = [NOBODY, VIEWER, OPERATOR, ADMIN]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


@pytest.fixture(scope="module")
def still_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """For tests that change nothing."""
    with running_rig(tmp_path_factory.mktemp("still")) as rig:
        rig.enrol("cam-1")
        yield rig


@pytest.fixture
def key() -> OperatorKey:
    return OperatorKey.generate()


class Prepared:
    """A rig with one of everything, and the names under which the table of addresses knows them."""

    def __init__(self, rig: Rig, key: OperatorKey) -> None:
        self.rig, self._key = rig, key
        rig.enrol("cam-1", "cam-2", "cam-3")
        rig.trust(key)
        spare = OperatorKey.generate()
        rig.trust(spare)
        rig.access.create_token("spare", VIEWER, actor="rig")
        release = rig.release(key)
        self.names = {
            "release": release,
            "rollout": str(rig.ota.start_rollout(release, "id=cam-3", actor="rig").id),
            "command": rig.registry.send_command("cam-1", "identify", actor="rig"),
            "other_key": OperatorKey.generate().public.hex(),
            "spare_key_id": spare.key_id.hex(),
        }

    def ask(self, client: httpx.Client, method: str, path: str, body: Any) -> httpx.Response:
        path = path.format(**self.names)
        if body == "upload":
            built = self.rig.build(self._key)
            return client.request(
                method, path, files=upload(built.blob, *(one.data for one in built.encodings))
            )
        if body is not None:
            body = {name: self._filled(value) for name, value in body.items()}
        return client.request(method, path, json=body)

    def _filled(self, value: Any) -> Any:
        return value.format(**self.names) if isinstance(value, str) else value


def upload(manifest: bytes, *encodings: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    kind = "application/octet-stream"
    return [
        ("manifest", ("m", manifest, kind)),
        *(("encodings", (f"e{number}", data, kind)) for number, data in enumerate(encodings)),
    ]


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer, which has exactly the one shape."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"code", "message", "facts"}
    assert isinstance(error["code"], str)
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["facts"], dict)
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text
    return error


# -- who may do what -----------------------------------------------------------------------------------------


def test_the_table_has_every_address(still_rig: Rig) -> None:
    schema = still_rig.nobody.get("/openapi.json").json()
    told = {
        (method.upper(), path.removeprefix(PREFIX))
        for path, item in schema["paths"].items()
        for method in item
    }
    places = {
        "/cameras/cam-1": "/cameras/{name}",
        "/cameras/cam-2": "/cameras/{name}",
        "/tokens/spare": "/tokens/{name}",
        "/commands/{command}": "/commands/{command_id}",
        "/keys/{spare_key_id}": "/keys/{key_id}",
    }

    def general(path: str) -> str:
        for special, usual in places.items():
            if path == special or path.startswith(special + "/"):
                path = usual + path.removeprefix(special)
        path = path.replace("/commands/identify", "/commands/{command}")
        return path.replace("{release}", "{release_id}").replace("{rollout}", "{rollout_id}")

    assert {(method, general(path)) for method, path, *_ in TABLE} == told


@pytest.mark.parametrize(("method", "path", "least", "body", "success"), TABLE)
def test_each_address_is_open_to_exactly_its_roles(
    rig: Rig, key: OperatorKey, method: str, path: str, least: str, body: Any, success: int
) -> None:
    prepared = Prepared(rig, key)
    for asking in ROLE_NAMES:  # those who may not come first, and change nothing
        client = rig.nobody if asking == NOBODY else rig.client(Role(asking))
        answer = prepared.ask(client, method, path, body)
        if ROLE_NAMES.index(asking) >= ROLE_NAMES.index(least):
            assert answer.status_code == success, answer.text
        elif asking == NOBODY:
            assert answer.status_code == 401
            assert error_of(answer)["code"] == "unauthenticated"
            assert answer.headers["www-authenticate"] == "Bearer"
        else:
            assert answer.status_code == 403
            error = error_of(answer)
            assert (error["code"], error["facts"]) == ("access_denied", {"needed": least, "role": asking})


def test_a_refused_request_changes_nothing(rig: Rig, key: OperatorKey) -> None:
    prepared = Prepared(rig, key)
    before = rig.admin.get("/audit").json()
    for method, path, least, body, _ in TABLE:
        if least in (OPERATOR, ADMIN):
            assert prepared.ask(rig.viewer, method, path, body).status_code == 403
    assert rig.admin.get("/audit").json() == before


def test_changes_are_audited_under_the_tokens_name(rig: Rig) -> None:
    rig.admin.post("/cameras", json={"name": "cam-1"})
    rig.operator.patch("/cameras/cam-1", json={"add_tags": ["line-3"]})
    entries = rig.admin.get("/audit", params={"limit": 2}).json()
    assert [(one["actor"], one["action"], one["subject"]) for one in entries] == [
        ("the-operator", "camera.tag", "cam-1"),
        ("the-admin", "camera.enrol", "cam-1"),
    ]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic dXNlcjpwYXNz",
        "bearer\tx",
        "Bearer " + "x" * 5000,
        "Bearer \xe9\xe8",
        "Bearer ' OR 1=1 --",
    ],
)
def test_anything_but_a_known_token_is_refused_alike(still_rig: Rig, header: str) -> None:
    answer = still_rig.nobody.get("/status", headers={b"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert error_of(answer)["code"] == "unauthenticated"


def test_a_revoked_token_stops_working_at_once(rig: Rig) -> None:
    token = rig.admin.post("/tokens", json={"name": "temp", "role": "operator"}).json()["token"]
    client = rig.with_token(token)
    assert client.get("/status").status_code == 200
    assert rig.admin.delete("/tokens/temp").status_code == 204
    assert client.get("/status").status_code == 401


def test_tokens_and_secrets_are_shown_once_and_never_listed(rig: Rig) -> None:
    token = rig.admin.post("/tokens", json={"name": "temp", "role": "viewer"}).json()["token"]
    secret = rig.admin.post("/cameras", json={"name": "cam-1"}).json()["secret"]
    newer = rig.admin.post("/cameras/cam-1/secret").json()["secret"]
    assert secret != newer
    everything = "".join(
        rig.admin.get(path).text for path in ("/tokens", "/audit", "/cameras", "/cameras/cam-1", "/status")
    )
    for hidden in (token, secret, newer, rig.tokens[ADMIN]):
        assert hidden not in everything


# -- one shape for every error -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/cameras/nobody-there", {}, 404, "unknown_camera"),
        ("GET", "/releases/model-99", {}, 404, "unknown_release"),
        ("GET", "/releases/model-99/manifest", {}, 404, "unknown_release"),
        ("GET", "/rollouts/99", {}, 404, "unknown_rollout"),
        ("GET", "/commands/0123456789abcdef", {}, 404, "not_found"),
        ("DELETE", "/tokens/nobody", {}, 404, "not_found"),
        ("DELETE", "/keys/0123456789abcdef", {}, 404, "not_found"),
        ("GET", "/results?camera=nobody-there", {}, 404, "unknown_camera"),
        ("GET", "/nowhere", {}, 404, "unknown_path"),
        ("GET", "/../../etc/passwd", {}, 404, "unknown_path"),
        ("GET", "/docs", {}, 404, "unknown_path"),
        ("PUT", "/cameras", {}, 405, "method_not_allowed"),
        ("OPTIONS", "/cameras", {}, 405, "method_not_allowed"),
        ("POST", "/cameras", {"json": {"name": "cam-1"}}, 409, "conflict"),
        ("POST", "/cameras", {"json": {"name": "cam-9", "surprise": 1}}, 422, "malformed"),
        ("POST", "/cameras", {"json": {}}, 422, "malformed"),
        ("POST", "/cameras", {"json": [1]}, 422, "malformed"),
        ("POST", "/cameras", {}, 422, "malformed"),
        ("POST", "/cameras/cam-1/commands/format-disk", {}, 422, "invalid"),
        ("POST", "/cameras/cam-1/leds", {"json": {"color": "ultraviolet"}}, 422, "malformed"),
        ("GET", "/cameras?target=colour%3Dred", {}, 422, "invalid"),
        ("GET", "/results?limit=1001", {}, 422, "malformed"),
        ("GET", "/results?limit=0", {}, 422, "malformed"),
        ("GET", "/results?since=nan", {}, 422, "malformed"),
        ("GET", "/results?since=-1", {}, 422, "malformed"),
        ("GET", "/results?limti=5", {}, 422, "malformed"),
        ("GET", "/releases/next?kind=virus", {}, 422, "malformed"),
        (
            "POST",
            "/rollouts",
            {"json": {"release": "model-1", "target": "all", "waves": [0]}},
            422,
            "malformed",
        ),
        ("POST", "/keys", {"json": {"public": "00" * 64, "name": "zero"}}, 422, "invalid"),
    ],
)
def test_errors_have_one_shape_and_a_status_that_fits(
    rig: Rig, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    rig.enrol("cam-1")
    answer = rig.admin.request(method, path, **options)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code), answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"null",
        b'{"name": "cam-9"} trailing',
        b"\xff\xfe\x00",
        b'{"name": "cam\\ud800"}',
        b'{"name": NaN}',
        b'{"name": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"name": 1e999}',
        b'{"name": ' + b"9" * 10_000 + b"}",
    ],
)
def test_bodies_that_are_no_json_of_ours_are_refused_without_a_crash(still_rig: Rig, body: bytes) -> None:
    answer = still_rig.admin.post("/cameras", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert error_of(answer)["code"] == "malformed"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5)
)
def test_any_json_as_a_cameras_name_is_enrolled_or_refused_in_shape(still_rig: Rig, name: Any) -> None:
    body = json.dumps({"name": name, "note": name}).encode()
    answer = still_rig.admin.post("/cameras", content=body, headers={"Content-Type": "application/json"})
    if answer.status_code != 201:
        assert answer.status_code in (409, 422)
        error_of(answer)


def test_a_validation_error_does_not_repeat_what_was_sent(still_rig: Rig) -> None:
    answer = still_rig.admin.post("/tokens", json={"name": "x", "role": "hunter2-my-secret"})
    assert answer.status_code == 422
    assert "hunter2" not in answer.text


def test_a_defect_is_answered_without_its_traceback_and_logged_with_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail: /var/lib/fleetd")

    monkeypatch.setattr(rig.registry, "cameras", broken)
    answer = rig.viewer.get("/cameras")
    assert answer.status_code == 500
    assert error_of(answer)["code"] == "internal"
    assert "secret detail" not in answer.text
    captured = capsys.readouterr()
    logged = captured.out + captured.err
    assert "request_failed" in logged
    assert "secret detail" in logged
    assert rig.tokens[VIEWER] not in logged, "a token must never reach a log"


def test_an_answer_that_breaks_its_own_schema_is_a_defect_not_an_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.registry, "unknown", lambda _limit: [{"name": "x", "first_seen": "yesterday"}])
    answer = rig.viewer.get("/unknown-cameras")
    assert answer.status_code == 500
    assert error_of(answer)["code"] == "internal"


def test_an_unusable_database_is_503_with_a_hint_to_try_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> None:
        raise StoreError("The database is on holiday.", file="fleet.db")

    monkeypatch.setattr(rig.registry, "cameras", down)
    answer = rig.viewer.get("/cameras")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert error_of(answer) == {
        "code": "store_unavailable",
        "message": "The database is on holiday.",
        "facts": {"file": "fleet.db"},
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownCameraError(), 404),
        (ConflictError(), 409),
        (InvalidError(), 422),
        (AccessError(), 403),
        (BrokerError(), 503),
        (UnavailableError(), 503),
        (SettingsError(), 500),
        (FleetError(), 500),
    ],
)
def test_each_family_of_errors_has_its_status(error: FleetError, status: int) -> None:
    assert status_of(error) == status


def test_facts_of_any_kind_can_be_answered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, object] = {
        "nan": float("nan"),
        "bytes": b"\x00" * 9,
        "set": {1},
        "path": Path("/tmp"),
        "long": "x" * 10_000,
        "lone": "\ud800",
        "map": {1: [None, True, 2.5]},
    }

    def refuse(*_: object, **__: object) -> None:
        raise InvalidError("No.", **facts)

    monkeypatch.setattr(rig.registry, "cameras", refuse)
    error = error_of(rig.viewer.get("/cameras"))
    assert error["facts"]["bytes"] == "9 bytes"
    assert error["facts"]["map"] == {"1": [None, True, 2.5]}
    assert len(error["facts"]["long"]) < 1000


# -- hostile names and heads ---------------------------------------------------------------------------------

HOSTILE: Final = [
    "+",
    "%23",
    "a%2Fb",
    "cam%2F%23",
    "..%2Fx",
    "x" * 300,
    "%00z",
    "cam-1%00",
    "cam-1%0A",
    "%25u",
    "$SYS",
    "_fleetd",
    "-cam",
    "CAM-1",
    "c%C3%A1m",
    "%D1%81am-1",  # a Cyrillic letter that looks like c
    "cam%201",
    "'%3B%20DROP%20TABLE%20cameras%3B--",
    "%ED%A0%80",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("path", ["/cameras/{}", "/cameras/{}/leds", "/releases/{}", "/releases/{}/manifest"])
def test_hostile_names_reach_no_service(
    still_rig: Rig, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    def reached(*_: object, **__: object) -> None:
        pytest.fail("a hostile name reached a service")

    monkeypatch.setattr(still_rig.registry, "camera", reached)
    monkeypatch.setattr(still_rig.registry, "sightings", reached)
    monkeypatch.setattr(still_rig.ota, "release", reached)
    monkeypatch.setattr(still_rig.ota, "manifest", reached)
    answer = still_rig.admin.get(path.format(name))
    assert answer.status_code in (404, 422)
    assert error_of(answer)["code"] in ("malformed", "unknown_path")


@pytest.mark.parametrize(
    "name", ["+", "#", "a/b", "../x", "x" * 64, "", "\x00z", "cam-1\n", "$SYS", "_x", "CAM", "\u0441"]
)
def test_hostile_names_are_not_enrolled(still_rig: Rig, name: str) -> None:
    answer = still_rig.admin.post("/cameras", json={"name": name})
    assert answer.status_code == 422
    assert error_of(answer)["code"] == "malformed"


@pytest.mark.parametrize("rollout", ["0", "-1", "1e3", "99999999999999999999", "1%2F2", "x", "%00"])
def test_rollout_numbers_are_numbers(still_rig: Rig, rollout: str) -> None:
    assert still_rig.admin.get(f"/rollouts/{rollout}").status_code in (404, 422)


def test_text_fields_take_no_control_characters(still_rig: Rig) -> None:
    for body in ({"name": "a", "note": "x\x1b[2J"}, {"name": "a", "tags": ["x\ny"]}):
        assert still_rig.admin.post("/cameras", json=body).status_code == 422
    assert still_rig.admin.post("/tokens", json={"name": "a\x00b", "role": "viewer"}).status_code == 422


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "fleet.example.evil", "[::2]"]
)
def test_a_foreign_host_name_is_refused_before_anything_else(still_rig: Rig, host: str) -> None:
    for path in ("/health", "/cameras", "/nowhere"):
        answer = still_rig.admin.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert error_of(answer)["code"] == "wrong_host"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8080",
        "fleet.example",
        "Fleet.Example:8080",
    ],
)
def test_known_host_names_are_answered_whatever_their_port(still_rig: Rig, host: str) -> None:
    assert still_rig.nobody.get("/health", headers={"Host": host}).status_code == 200


def test_host_names_are_read_as_people_write_them() -> None:
    assert host_name("fd00::1") == host_name("[fd00::1]:8080") == "[fd00::1]"


@pytest.mark.parametrize("path", ["/health", "/cameras", "/nowhere", "/openapi.json"])
def test_every_answer_forbids_being_run_framed_guessed_at_or_kept(still_rig: Rig, path: str) -> None:
    for client in (still_rig.nobody, still_rig.viewer):
        headers = client.get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json"],
)
def test_a_form_of_another_site_cannot_pass_as_json(still_rig: Rig, kind: str) -> None:
    answer = still_rig.admin.post("/cameras", content=b'{"name": "x"}', headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert error_of(answer)["code"] == "unsupported_media_type"


def test_no_page_loads_scripts_of_other_people(still_rig: Rig) -> None:
    client = httpx.Client(transport=still_rig.transport, base_url=BASE)
    for path in ("/docs", "/redoc", "/api/v1/docs", "/api/v1/redoc", "/docs/oauth2-redirect", "/"):
        assert client.get(path).status_code == 404
    assert "http://" not in client.get("/api/v1/openapi.json").text
    assert "https://" not in client.get("/api/v1/openapi.json").text


# -- limits while reading ------------------------------------------------------------------------------------


def test_a_body_that_declares_too_much_is_refused_unread(still_rig: Rig) -> None:
    answer = still_rig.admin.post("/cameras", json={"name": "x", "note": "y" * JSON_BYTES})
    assert answer.status_code == 413
    assert error_of(answer)["facts"]["limit"] == JSON_BYTES


def asgi(rig: Rig, chunks: AsyncIterator[bytes], path: str, kind: str, app: Any = None) -> tuple[int, int]:
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
            (b"transfer-encoding", b"chunked"),
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
    assert status in (413, 422)
    assert taken < 30


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


# -- what it answers -----------------------------------------------------------------------------------------


def test_a_camera_that_reported_is_shown_with_all_it_said(rig: Rig) -> None:
    rig.enrol("cam-1")
    rig.land(
        "cam-1",
        "status",
        1,
        online=True,
        board="OMVRT1060 32768 SDRAM",
        firmware="4.8.1",
        release={"id": "model-1", "digest": "ab" * 32, "sequence": 1, "epoch": 1, "slot": "a"},
        network={"kind": "wlan", "rssi": -60},
        problems=["clock-unset"],
    )
    rig.land("cam-1", "led", 2, color="green", pattern="blink", reason="running")
    rig.now += 5
    camera = rig.viewer.get("/cameras/cam-1").json()
    assert camera["presence"] == "online"
    assert camera["silent_s"] == 5
    assert camera["release"] == {"id": "model-1", "digest": "ab" * 32, "epoch": 1, "sequence": 1}
    assert camera["led"] == {
        "color": "green",
        "pattern": "blink",
        "reason": "running",
        "at": pytest.approx(START),
    }
    assert camera["network"]["rssi"] == -60
    assert camera["problems"] == ["clock-unset"]
    assert rig.viewer.get("/cameras", params={"target": "board=OMVRT1060"}).json() == [camera]
    assert rig.viewer.get("/cameras", params={"target": "board=OMVH7"}).json() == []


def test_history_is_newest_first_within_its_window_and_limit(rig: Rig) -> None:
    rig.enrol("cam-1", "cam-2")
    for seq in range(1, 6):
        rig.now = START + 10 * seq
        for camera in ("cam-1", "cam-2"):
            rig.land(camera, "result", seq, results=[{"label": f"n{seq}", "score": 0.5}], release="model-1")
            rig.land(camera, "telemetry", seq + 100, fps=float(seq))
            rig.land(camera, "event", seq + 200, kind="boot", text=f"{seq}")
    ask = rig.viewer.get
    for path, field in (("/results", "label"), ("/telemetry", "fps"), ("/events", "text")):
        rows = ask(path, params={"camera": "cam-1"}).json()
        assert [row["at"] for row in rows] == sorted((row["at"] for row in rows), reverse=True)
        assert len(rows) == 5
        assert {row["camera"] for row in rows} == {"cam-1"}
        middle = ask(path, params={"camera": "cam-1", "since": START + 20, "until": START + 40}).json()
        assert middle == rows[2:4]
        assert ask(path, params={"limit": 2}).json() == ask(path).json()[:2]
        assert all(row[field] is not None for row in rows)
    assert [row["camera"] for row in ask("/results", params={"label": "n3"}).json()] == ["cam-2", "cam-1"]
    summary = ask("/results/summary", params={"camera": "cam-1"}).json()
    assert {(row["label"], row["count"], row["release_id"]) for row in summary} == {
        (f"n{seq}", 1, "model-1") for seq in range(1, 6)
    }
    rig.now += 25 * 3600
    assert ask("/results/summary").json() == [], "without `since` it covers the last 24 hours"
    assert len(ask("/results/summary", params={"since": 0}).json()) == 10


def test_labels_that_look_like_patterns_or_sql_are_only_labels(rig: Rig) -> None:
    rig.enrol("cam-1")
    for seq, label in enumerate(["%", "_", "'; DROP TABLE results; --", "<img src=x>"], 1):
        rig.land("cam-1", "result", seq, results=[{"label": label, "score": 1.0}])
    for label in ("%", "_", "'; DROP TABLE results; --", "<img src=x>"):
        found = rig.viewer.get("/results", params={"label": label}).json()
        assert [row["label"] for row in found] == [label]


def test_an_operators_sighting_is_kept_with_its_source(rig: Rig) -> None:
    rig.enrol("cam-1")
    body = {"color": "green", "pattern": "blink", "reason": "after the storm"}
    assert rig.operator.post("/cameras/cam-1/leds", json=body).status_code == 204
    found = rig.viewer.get("/cameras/cam-1/leds").json()
    assert found == [{"camera": "cam-1", "at": START, "source": "operator", **body}]
    assert rig.viewer.get("/leds").json() == found
    assert rig.viewer.get("/leds", params={"since": START + 1}).json() == []


def test_what_nobody_understood_is_shown_exactly_and_readably(rig: Rig) -> None:
    payload = b"\xff{not json\x1b[2J"
    rig.landing.write([], [DeadLetter("fleet/v1/cam-1/up/result", payload, "malformed", "why", START)])
    (letter,) = rig.viewer.get("/dead-letters").json()
    assert letter["text"] == "\\xff{not json\x1b[2J"
    assert letter["payload"] == "/3tub3QganNvbhtbMko="
    assert letter["size"] == len(payload)


def test_strangers_are_listed(rig: Rig) -> None:
    rig.land("stranger", "result", 1, results=[{"label": "x", "score": 1.0}])
    (found,) = rig.viewer.get("/unknown-cameras").json()
    assert (found["name"], found["messages"]) == ("stranger", 1)


def test_a_command_is_queued_and_its_reply_is_found(rig: Rig) -> None:
    rig.enrol("cam-1")
    sent = rig.operator.post("/cameras/cam-1/commands/identify")
    assert sent.status_code == 202
    command = sent.json()["id"]
    assert rig.viewer.get(f"/commands/{command}").json()["state"] == "queued"
    rig.landing.write([])
    rig.land_reply("cam-1", "identify", 1, id=command, ok=True, data={"blinked": 3})
    answer = rig.viewer.get(f"/commands/{command}").json()
    assert (answer["state"], answer["data"]) == ("done", {"blinked": 3})


def test_a_release_goes_up_and_its_manifest_comes_back_byte_for_byte(rig: Rig, key: OperatorKey) -> None:
    rig.trust(key)
    assert rig.viewer.get("/releases/next").json() == {"release": "model-1", "epoch": 1, "sequence": 1}
    built = rig.build(key)
    answer = rig.operator.post("/releases", files=upload(built.blob, *(one.data for one in built.encodings)))
    assert answer.status_code == 201
    release = answer.json()
    assert (release["id"], release["labels"], release["digest"]) == (
        "model-1",
        ["cat", "dog", "fox"],
        built.digest,
    )
    assert rig.viewer.get("/releases/model-1").json() == release
    manifest = rig.viewer.get("/releases/model-1/manifest")
    assert manifest.content == built.blob
    assert manifest.headers["content-type"] == "application/octet-stream"
    assert rig.viewer.get("/releases/next").json()["release"] == "model-2"


def test_releases_that_no_accepted_key_signed_are_refused_with_the_reason(rig: Rig, key: OperatorKey) -> None:
    built = rig.build(key)
    answer = rig.admin.post("/releases", files=upload(built.blob, *(one.data for one in built.encodings)))
    assert answer.status_code == 422
    assert error_of(answer)["facts"]["reason"] == "unknown-key"
    rig.trust(key)
    flipped = bytearray(built.blob)
    flipped[-10] ^= 1
    answer = rig.admin.post("/releases", files=upload(bytes(flipped), *(one.data for one in built.encodings)))
    assert error_of(answer)["facts"]["reason"] == "signature-invalid"
    assert rig.viewer.get("/releases").json() == []


def test_a_rollout_is_previewed_started_watched_paused_resumed_and_cancelled(
    rig: Rig, key: OperatorKey
) -> None:
    rig.enrol("cam-1", "cam-2", "cam-3")
    rig.trust(key)
    release = rig.release(key)
    rig.land("cam-3", "status", 1, online=True, board="OMVH7 1024")
    preview = rig.operator.post(
        "/rollouts/preview", json={"release": release, "target": "all", "waves": [50, 100]}
    )
    assert preview.json()["skipped"] == [
        {
            "camera": "cam-3",
            "reason": "unsuitable-board",
            "detail": "It is a OMVH7 1024; the release is for OMVRT1060.",
        }
    ]
    assert [len(wave) for wave in preview.json()["waves"]] == [1, 1]
    body = {"release": release, "target": "all", "waves": [50, 100], "settings": {"max_failed": 0}}
    rollout = rig.operator.post("/rollouts", json=body).json()
    assert (rollout["state"], rollout["waves"], rollout["created_by"]) == (
        "running",
        [50, 100],
        "the-operator",
    )
    assert rollout["settings"]["max_failed"] == 0
    view = rig.viewer.get(f"/rollouts/{rollout['id']}").json()
    assert sum(view["tally"].values()) == len(view["assignments"]) == 2
    act = f"/rollouts/{rollout['id']}"
    assert rig.operator.post(f"{act}/pause").json()["state"] == "paused"
    assert rig.operator.post(f"{act}/resume").json()["state"] == "running"
    assert rig.operator.post(f"{act}/cancel").json()["state"] == "cancelled"
    answer = rig.operator.post(f"{act}/resume")
    assert answer.status_code == 409
    assert error_of(answer)["code"] == "conflict"
    assert [one["id"] for one in rig.viewer.get("/rollouts").json()] == [rollout["id"]]


def test_every_route_says_what_it_does(still_rig: Rig) -> None:
    schema = still_rig.nobody.get("/openapi.json").json()
    operations = [operation for item in schema["paths"].values() for operation in item.values()]
    assert all(operation.get("description") for operation in operations)
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)


# -- a real socket -------------------------------------------------------------------------------------------


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


# -- documents -----------------------------------------------------------------------------------------------


def test_every_address_is_in_the_api_document(still_rig: Rig) -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [
        f"{method} {route.path.removeprefix(PREFIX)}"
        for route in still_rig.app.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
        if f"`{method} {route.path.removeprefix(PREFIX)}`" not in text
    ]
    assert missing == []


def test_every_error_code_is_in_the_api_document() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")

    def family(kind: type[FleetError]) -> Iterator[str]:
        if kind.__module__.startswith("fleetd."):
            yield kind.code
        for child in kind.__subclasses__():
            yield from family(child)

    assert [code for code in sorted(set(family(FleetError))) if f"`{code}`" not in text] == []
