"""The HTTP API over a real database and real services, asked without a socket.

rig.admin.get("/cameras")        an httpx client with a token of that role
rig.now += 60                    the clock of all services
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
from fastapi import FastAPI

from fleetd.access import AccessControl
from fleetd.accounts import Accounts
from fleetd.bundles.opening import open_bundle
from fleetd.bundles.release import BuiltRelease, build_release
from fleetd.bundles.signing import OperatorKey
from fleetd.domain.records import Role
from fleetd.freshness import Freshness
from fleetd.incidents import Incidents
from fleetd.ota import Ota
from fleetd.recovery import RecoveryService
from fleetd.registry import Registry
from fleetd.store import tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, Landing
from fleetd.tuner import Tuner
from fleetd.web.app import create_app
from tests.unit.bundles.models import LABELS, make

BOOT: Final = "0123456789abcdef"
BASE: Final = "http://localhost"
START: Final = 1_700_000_000.0


class InProcess(httpx.BaseTransport):
    """Asks an ASGI application directly, for a client that is not asynchronous."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        return asyncio.run(self._ask(request, body))

    async def _ask(self, request: httpx.Request, body: bytes) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=True)
        copy = httpx.Request(request.method, request.url, headers=request.headers, content=body)
        answer = await transport.handle_async_request(copy)
        content = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content, request=request)


class Rig:
    """Everything behind the API, with one token for each role."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.store = SqlStore(f"sqlite:///{folder}/fleet.db")
        tables.metadata.create_all(self.store.engine)
        self.registry = Registry(self.store, lambda: self.now)
        self.ota = Ota(self.store, lambda: self.now)
        self.access = AccessControl(self.store, lambda: self.now)
        self.incidents = Incidents(self.store, lambda: self.now, channels=["webhook"])
        self.recovery = RecoveryService(self.store, lambda: self.now)
        self.accounts = Accounts(self.store, lambda: self.now)
        self.landing = Landing(self.store)
        self.status: dict[str, Any] = {"ok": True, "broker": {"connected": True}, "problems": []}
        self.app: FastAPI = create_app(
            self.registry,
            self.ota,
            self.access,
            self.incidents,
            self.recovery,
            Freshness(self.store, lambda: self.now),
            self.accounts,
            Tuner(self.store, lambda: self.now),
            status=lambda: self.status,
            allowed_hosts=["fleet.example"],
            clock=lambda: self.now,
        )
        self.tokens = {
            role: self.access.create_token(f"the-{role}", role, actor="rig") for role in reversed(Role)
        }
        self.transport = InProcess(self.app)
        self.nobody = self._client(None)
        self.viewer, self.operator, self.admin = (self._client(self.tokens[role]) for role in Role)

    def client(self, role: Role | None) -> httpx.Client:
        """The client of that role; without one, of nobody."""
        return {
            None: self.nobody,
            Role.VIEWER: self.viewer,
            Role.OPERATOR: self.operator,
            Role.ADMIN: self.admin,
        }[role]

    def with_token(self, token: str | None) -> httpx.Client:
        """A client with any token."""
        return self._client(token)

    def enrol(self, *names: str) -> None:
        """Enrols cameras."""
        for name in names:
            self.registry.enrol(name, actor="rig")

    def land(self, camera: str, channel: str, seq: int, **body: Any) -> None:
        """Stores a message as if the camera had just sent it."""
        self._land(camera, channel, "", seq, body)

    def land_reply(self, camera: str, command: str, seq: int, **body: Any) -> None:
        """Stores a camera's reply to a command."""
        self._land(camera, "reply", command, seq, body)

    def land_image(self, camera: str, image: str, first_seq: int, *pieces: bytes, **facts: Any) -> None:
        """Stores a picture as if the camera had just sent its pieces."""
        whole = b"".join(pieces)
        known = {"size": len(whole), "pieces": len(pieces), "sha256": hashlib.sha256(whole).hexdigest()}
        for n, data in enumerate(pieces):
            body = {**known, "why": "command", "data": data, **facts}
            self._land(camera, "image", f"{image}/{n}", first_seq + n, body)

    def trust(self, key: OperatorKey) -> None:
        """Accepts releases that this key signs."""
        self.ota.add_key(key.public.hex(), "rig", actor="rig")

    def build(self, key: OperatorKey, *, board: str = "OMVRT1060") -> BuiltRelease:
        """The next release, signed, not uploaded."""
        release_id, epoch, sequence = self.ota.next_release()
        return build_release(
            open_bundle(make(), "\n".join(LABELS).encode()),
            release_id=release_id,
            name="animals",
            version="1",
            epoch=epoch,
            sequence=sequence,
            boards=[board],
            created=int(self.now),
            key=key,
        )

    def release(self, key: OperatorKey) -> str:
        """The id of a new stored release."""
        built = self.build(key)
        return self.ota.add_release(built.blob, [one.data for one in built.encodings], actor="rig").id

    def close(self) -> None:
        """Closes everything."""
        for client in (self.nobody, self.viewer, self.operator, self.admin):
            client.close()
        self.store.close()

    def _land(self, camera: str, channel: str, rest: str, seq: int, body: dict[str, Any]) -> None:
        message = {"boot": BOOT, "seq": seq, "up_ms": int(1000 * (self.now - START)), **body}
        self.landing.write([Arrival(camera, channel, rest, message, self.now, retained=False)])

    def _client(self, token: str | None) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(transport=self.transport, base_url=f"{BASE}/api/v1", headers=headers)


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


@contextlib.contextmanager
def running_rig(folder: Path) -> Iterator[Rig]:
    """A rig, closed at the end."""
    rig = Rig(folder)
    try:
        yield rig
    finally:
        rig.close()
