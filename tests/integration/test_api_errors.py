"""The HTTP API says no: one shape for every error, and nothing hostile reaches a service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from fleetd.web.errors import status_of
from fleetd.web.gate import host_name
from tests.integration.api_rig import BASE, Rig, error_of, running_rig

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


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/cameras/nobody-there", {}, 404, "unknown_camera"),
        ("GET", "/releases/model-99", {}, 404, "unknown_release"),
        ("GET", "/releases/model-99/manifest", {}, 404, "unknown_release"),
        ("GET", "/releases/model-99/content", {}, 404, "unknown_release"),
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
@pytest.mark.parametrize(
    "path",
    [
        "/cameras/{}",
        "/cameras/{}/leds",
        "/releases/{}",
        "/releases/{}/manifest",
        "/releases/{}/content",
    ],
)
def test_hostile_names_reach_no_service(
    still_rig: Rig, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    def reached(*_: object, **__: object) -> None:
        pytest.fail("a hostile name reached a service")

    monkeypatch.setattr(still_rig.registry, "camera", reached)
    monkeypatch.setattr(still_rig.registry, "sightings", reached)
    monkeypatch.setattr(still_rig.ota, "release", reached)
    monkeypatch.setattr(still_rig.ota, "manifest", reached)
    monkeypatch.setattr(still_rig.ota, "content", reached)
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
