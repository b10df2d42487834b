"""The HTTP API: who may do what, and what it answers."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute

from fleetd.bundles.keyrecords import make_record
from fleetd.bundles.signing import OperatorKey
from fleetd.domain.incidents import Kind, Symptom
from fleetd.domain.records import Role
from fleetd.errors import (
    FleetError,
)
from fleetd.store import tables
from fleetd.store.landing import DeadLetter
from fleetd.web.app import PREFIX
from fleetd.web.releases import CONTENTS_AT_ONCE
from tests.integration.api_rig import START, Rig, error_of, running_rig, upload
from tests.test_architecture import MAY_USE

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
    ("POST", "/cameras/cam-1/revoke", ADMIN, None, 204),
    ("POST", "/cameras/cam-1/reinstate", ADMIN, None, 409),  # it is not revoked
    ("POST", "/cameras/cam-1/commands/identify", OPERATOR, {"ttl_s": 30}, 202),
    ("GET", "/commands/{command}", VIEWER, None, 200),
    ("POST", "/cameras/cam-1/fresh-key", ADMIN, None, 200),
    ("GET", "/cameras/cam-1/leds", VIEWER, None, 200),
    ("GET", "/cameras/cam-1/images", VIEWER, None, 200),
    ("GET", "/cameras/cam-1/images/{image}", OPERATOR, None, 200),
    ("POST", "/cameras/cam-1/leds", OPERATOR, {"color": "green", "pattern": "blink"}, 204),
    ("GET", "/cameras/cam-1/diagnosis", VIEWER, None, 200),
    ("GET", "/cameras/cam-1/timeline", VIEWER, None, 200),
    ("POST", "/cameras/cam-1/recoveries", OPERATOR, {"usb": "rom"}, 201),
    ("GET", "/recoveries", VIEWER, None, 200),
    ("GET", "/recoveries/{recovery}", VIEWER, None, 200),
    ("POST", "/recoveries/{recovery}/outcomes", OPERATOR, {"step": "unplug", "outcome": "failed"}, 200),
    ("POST", "/recoveries/{recovery}/abandon", OPERATOR, None, 204),
    ("GET", "/incidents", VIEWER, None, 200),
    ("GET", "/incidents/report", VIEWER, None, 200),
    ("GET", "/incidents/{incident}", VIEWER, None, 200),
    ("POST", "/incidents/{incident}/notes", OPERATOR, {"text": "on my way"}, 204),
    ("POST", "/incidents/{incident}/owner", OPERATOR, {"owner": "ada"}, 204),
    ("POST", "/incidents/{incident}/mute", OPERATOR, {"seconds": 60}, 204),
    ("POST", "/incidents/{incident}/close", OPERATOR, {"reason": "cable"}, 204),
    ("GET", "/maintenance", VIEWER, None, 200),
    ("PUT", "/maintenance/site=hall-3", OPERATOR, {"seconds": 60}, 204),
    ("DELETE", "/maintenance/all", OPERATOR, None, 204),
    ("GET", "/cameras/cam-1/config", VIEWER, None, 200),
    ("PATCH", "/config", OPERATOR, {"target": "id=cam-1", "set": {"publish": "summary"}}, 200),
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
    ("GET", "/keys/ring", VIEWER, None, 200),
    ("POST", "/keys/records", ADMIN, {"record": "{record}", "name": "ada"}, 201),
    ("GET", "/releases", VIEWER, None, 200),
    ("GET", "/releases/next", VIEWER, None, 200),
    ("POST", "/releases", OPERATOR, "upload", 201),
    ("GET", "/releases/{release}", VIEWER, None, 200),
    ("GET", "/releases/{release}/manifest", VIEWER, None, 200),
    ("GET", "/releases/{release}/content", OPERATOR, None, 200),
    ("POST", "/rollouts/preview", OPERATOR, {"release": "{release}", "target": "all"}, 200),
    ("POST", "/rollouts", OPERATOR, {"release": "{release}", "target": "id=cam-1"}, 201),
    ("GET", "/rollouts", VIEWER, None, 200),
    ("GET", "/rollouts/{rollout}", VIEWER, None, 200),
    ("POST", "/rollouts/{rollout}/pause", OPERATOR, None, 200),
    ("POST", "/rollouts/{rollout}/resume", OPERATOR, None, 200),
    ("POST", "/rollouts/{rollout}/approve", OPERATOR, None, 409),  # it takes none
    ("POST", "/rollouts/{rollout}/cancel", OPERATOR, None, 200),
    ("POST", "/rollouts/{rollout}/retry", OPERATOR, None, 422),  # nothing has failed in it
    ("POST", "/rollouts/{rollout}/revert", OPERATOR, {"release": "{release}"}, 422),  # nobody has taken it
    ("DELETE", "/rollouts/{rollout}", OPERATOR, None, 409),  # it still runs
    ("GET", "/rollouts/{rollout}/explain", VIEWER, None, 200),
    ("GET", "/cameras/cam-1/explain", VIEWER, None, 200),
    ("PUT", "/cameras/cam-1/pin", OPERATOR, {"release": "{release}"}, 200),
    ("DELETE", "/cameras/cam-1/pin", OPERATOR, None, 200),
    ("GET", "/tokens", ADMIN, None, 200),
    ("POST", "/tokens", ADMIN, {"name": "newcomer", "role": "viewer"}, 201),
    ("DELETE", "/tokens/spare", ADMIN, None, 204),
    ("GET", "/audit", ADMIN, None, 200),
    ("GET", "/mqtt-users", ADMIN, None, 200),
    ("POST", "/mqtt-users", ADMIN, {"name": "dashboard"}, 201),
    ("DELETE", "/mqtt-users/reader", ADMIN, None, 204),
]
ROLE_NAMES: Final = [NOBODY, VIEWER, OPERATOR, ADMIN]


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
        rig.accounts.add_user("reader", actor="rig")
        rig.land_image("cam-1", "0123456789ab", 100, b"\xff\xd8 a picture")
        release = rig.release(key)
        self.names = {
            "release": release,
            "image": "0123456789ab",
            "rollout": str(rig.ota.start_rollout(release, "id=cam-3", actor="rig").id),
            "command": rig.registry.send_command("cam-1", "identify", actor="rig"),
            "other_key": OperatorKey.generate().public.hex(),
            "spare_key_id": spare.key_id.hex(),
            "record": make_record(
                key, serial=1, epoch=1, created=1, keys=[key.public.hex()], recovery=[]
            ).hex(),
            "recovery": str(rig.recovery.start("cam-2", guide="ladder", actor="rig").recovery.id),
            "incident": str(self._incident()),
        }
        rig.incidents.start_maintenance("all", 60, "", actor="rig")

    def _incident(self) -> int:
        with self.rig.store.transaction() as work:
            symptom = Symptom(Kind.SITE_OUTAGE, None, "hall-9", "it was dark")
            return work.incidents.add(symptom, "critical", [], self.rig.now).id

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
        "/maintenance/site=hall-3": "/maintenance/{subject}",
        "/maintenance/all": "/maintenance/{subject}",
        "/mqtt-users/reader": "/mqtt-users/{name}",
        "/commands/{command}": "/commands/{command_id}",
        "/keys/{spare_key_id}": "/keys/{key_id}",
    }

    def general(path: str) -> str:
        for special, usual in places.items():
            if path == special or path.startswith(special + "/"):
                path = usual + path.removeprefix(special)
        path = path.replace("/commands/identify", "/commands/{command}")
        return (
            path.replace("{release}", "{release_id}")
            .replace("{rollout}", "{rollout_id}")
            .replace("{recovery}", "{recovery_id}")
            .replace("{incident}", "{incident_id}")
        )

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


def test_the_content_comes_back_unpacked_as_it_lies_in_a_cameras_slot(rig: Rig, key: OperatorKey) -> None:
    rig.trust(key)
    built = rig.build(key)
    release = rig.ota.add_release(built.blob, [one.data for one in built.encodings], actor="rig")
    answer = rig.operator.get(f"/releases/{release.id}/content")
    assert answer.content == built.content
    assert hashlib.sha256(answer.content).hexdigest() == release.content_sha256
    assert answer.headers["content-type"] == "application/octet-stream"


def test_a_content_that_was_damaged_in_the_store_is_not_given_out(rig: Rig, key: OperatorKey) -> None:
    rig.trust(key)
    release = rig.release(key)
    with rig.store.connect(write=True) as connection:
        connection.execute(sa.update(tables.encodings).values(data=b"\x00" * 100))
    answer = rig.operator.get(f"/releases/{release}/content")
    assert answer.status_code == 500
    assert "damaged" in error_of(answer)["message"]


def test_contents_are_fetched_a_few_at_a_time_and_every_place_is_given_back(
    rig: Rig, key: OperatorKey
) -> None:
    rig.trust(key)
    address = f"/releases/{rig.release(key)}/content"
    for _ in range(2 * CONTENTS_AT_ONCE):
        assert rig.operator.get(address).status_code == 200
        assert rig.operator.get("/releases/model-99/content").status_code == 404
    places = rig.app.state.unpacking
    for _ in range(CONTENTS_AT_ONCE):
        asyncio.run(places.acquire())
    answer = rig.operator.get(address)
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "unavailable"
    places.release()
    assert rig.operator.get(address).status_code == 200


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
        # What the web may not import cannot be answered by it; other tests of this process may have loaded it.
        if kind.__module__.split(".")[:2][-1] in MAY_USE["web"]:
            yield kind.code
        for child in kind.__subclasses__():
            yield from family(child)

    assert [code for code in sorted(set(family(FleetError))) if f"`{code}`" not in text] == []
