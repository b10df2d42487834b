"""An operator's machine for tests: fleetctl against the real API, services and database, and cameras that answer."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
from typer.testing import CliRunner, Result

from fleetd.cli.main import app
from fleetd.cli.session import Session
from fleetd.domain.records import Role
from tests.integration.api_rig import BASE, Rig
from tests.unit.bundles.models import LABELS, Plan, make

RT1062: Final = "OMVRT1060 32768 SDRAM"
CLEAR_SCREEN: Final = "\x1b[2J"


class Refusing(httpx.BaseTransport):
    """A server that is not there."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)


class Slow(httpx.BaseTransport):
    """A server that does not answer."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out", request=request)


class Canned(httpx.BaseTransport):
    """A server that is no fleetd."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        self._answer = status, text, headers
        self.asked: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        status, text, headers = self._answer
        return httpx.Response(status, text=text, headers=headers)


class Desk:
    """An operator's machine: a home folder, a working folder, and fleetctl."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.home, self.folder = folder / "home", folder / "work"
        self.folder.mkdir(parents=True)
        self.env = {
            "HOME": str(self.home),
            "FLEETCTL_URL": BASE,
            "FLEETCTL_TOKEN": rig.tokens[Role.ADMIN],
        }
        self.meanwhile: Callable[[], None] = lambda: None
        self.slept = 0

    def run(
        self,
        *args: object,
        typed: str | None = None,
        role: Role | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> Result:
        env = dict(self.env)
        if role is not None:
            env["FLEETCTL_TOKEN"] = self.rig.tokens[role]
        session = Session(
            env=env,
            folder=self.folder,
            transport=transport or self.rig.transport,
            now=lambda: self.rig.now,
            sleep=self._sleep,
        )
        result = CliRunner().invoke(app, [str(arg) for arg in args], input=typed, obj=session)
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def ok(self, *args: object, **options: Any) -> str:
        result = self.run(*args, **options)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *args: object, **options: Any) -> Any:
        return json.loads(self.ok(*args, "--json", **options))

    def fails(self, code: int, *args: object, **options: Any) -> str:
        """What it complains about: one line what happened, and at most one what to do."""
        result = self.run(*args, **options)
        assert result.exit_code == code, result.output
        lines = result.stderr.rstrip("\n").split("\n")
        start = next(at for at, line in enumerate(lines) if line.startswith("fleetctl: "))
        assert len(lines) - start <= 2, lines
        return "\n".join(lines[start:])

    def make_key(self, *, trusted: bool = True) -> None:
        self.ok("keys", "init", "--no-password")
        if trusted:
            self.ok("keys", "trust", "--name", "ada")

    def bundle(self, plan: Plan | None = None, labels: tuple[str, ...] = LABELS) -> Path:
        path = self.folder / "bees.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("trained.tflite", make(plan))
            archive.writestr("labels.txt", "".join(f"{label}\n" for label in labels))
        return path

    def _sleep(self, _seconds: float) -> None:
        self.slept += 1
        assert self.slept < 200, "waited for ever"
        self.rig.now += 1
        self.meanwhile()


class Fleet:
    """Cameras that take what they are offered, one step each time somebody looks."""

    STEPS: Final = ("transferring", "verifying", "trial", "confirmed")

    def __init__(self, rig: Rig, *names: str, board: str = RT1062) -> None:
        self._rig = rig
        self._seq = 0
        self.outcome = "confirmed"
        self.reason: str | None = None
        rig.enrol(*names)
        for name in names:
            self._land(name, "status", online=True, board=board, firmware="4.8.1")

    def runs(self, name: str, release: str, digest: str, *, slot_bytes: int | None = None) -> None:
        """A camera says what it runs, and perhaps how large its slots are."""
        running = {"id": release, "digest": digest, "sequence": 1, "epoch": 1}
        facts: dict[str, Any] = {"online": True, "board": RT1062, "firmware": "4.8.1", "release": running}
        if slot_bytes is not None:
            facts["storage"] = {"backend": "flash", "slot_bytes": slot_bytes}
        self._land(name, "status", **facts)

    def step(self) -> None:
        """Each camera that takes part reports its next step; then fleetd draws its conclusions."""
        for rollout in self._rig.ota.rollouts():
            for one in self._rig.ota.rollout(rollout.id).assignments:
                if one.state.value in ("offered", "transferring", "verifying", "trial"):
                    self._report(one)
        while self._rig.ota.process():
            pass

    def _report(self, one: Any) -> None:
        steps = (*self.STEPS[:-1], self.outcome)
        state = steps[0] if one.state.value == "offered" else steps[steps.index(one.state.value) + 1]
        body: dict[str, Any] = {"generation": one.generation, "release": one.release_id, "state": state}
        if state == "transferring":
            body["blocks"] = {"done": 1, "total": 3}
        if state == "confirmed":
            body["digest"] = self._rig.ota.release(one.release_id).content_sha256
        elif state == self.outcome:
            body |= {"reason": self.reason, "detail": f"told by {one.camera} {CLEAR_SCREEN}"}
        self._land(one.camera, "update", **body)

    def _land(self, camera: str, channel: str, **body: Any) -> None:
        self._seq += 1
        self._rig.land(camera, channel, self._seq, **body)
