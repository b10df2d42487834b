"""Notices reach a webhook, a mail server and MQTT; what fails is tried again, and not for ever."""

import hashlib
import hmac
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog

from fleetd import notify
from fleetd.domain.incidents import Kind, Symptom
from fleetd.errors import SettingsError, UnavailableError
from fleetd.notices import ATTEMPTS, Notices
from fleetd.settings import load_settings
from tests.integration.api_rig import Rig, running_rig

NOTICE: dict[str, Any] = {
    "incident": 4, "what": "opened", "kind": "panic", "severity": "critical", "camera": "cam-7", "site": None,
    "cameras": 1, "summary": "cam-7: the firmware has given up\x1b[2J", "cause": "the firmware has given up",
    "todo": "Cut the power for ten seconds.", "opened_at": 1.0, "at": 1.0, "outcome": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


class Hook:
    """A web server that keeps what it is sent and answers what it is told to."""

    def __init__(self) -> None:
        self.status = 204
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def running_hook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(hook.status)
            if 300 <= hook.status < 400:
                self.send_header("Location", hook.url + "elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_gets_signed_json() -> None:
    with running_hook() as hook:
        notify.webhook(hook.url, "s3cret")(NOTICE)
        (headers, body), *_ = hook.taken
        assert json.loads(body) == NOTICE
        assert headers["content-type"] == "application/json"
        assert headers["x-fleetd-signature"] == hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
        notify.webhook(hook.url, None)(NOTICE)
        assert "x-fleetd-signature" not in hook.taken[1][0]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_does_not_take_it_is_a_failure_and_is_not_followed_elsewhere(status: int) -> None:
    with running_hook() as hook:
        hook.status = status
        with pytest.raises(UnavailableError, match=str(status)):
            notify.webhook(hook.url, None)(NOTICE)
        assert len(hook.taken) == 1


class MailServer(socketserver.BaseRequestHandler):
    """Just enough of SMTP."""

    mails: list[str]

    def handle(self) -> None:
        lines = self.request.makefile("rb")
        self.request.sendall(b"220 here\r\n")
        while line := lines.readline():
            word = line.strip().upper()
            if word == b"DATA":
                self.request.sendall(b"354 go on\r\n")
                text = []
                while (more := lines.readline()) not in (b".\r\n", b""):
                    text.append(more.decode())
                self.mails.append("".join(text))
            self.request.sendall(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


def test_an_email_says_what_happened_and_what_to_do() -> None:
    mails: list[str] = []
    handler = type("Handler", (MailServer,), {"mails": mails})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        send = notify.email(
            "127.0.0.1",
            server.server_address[1],
            security="none",
            user=None,
            password=None,
            sender="fleetd@example.org",
            to=["ada@example.org", "bob@example.org"],
        )
        send(NOTICE)
        server.shutdown()
    (mail,) = mails
    assert "To: ada@example.org, bob@example.org" in mail
    assert "Subject: [fleetd] opened: cam-7" in mail
    assert "\x1b" not in mail
    for line in (
        "Most likely: the firmware has given up.",
        "fleetctl incidents show 4",
        "fleetctl recover cam-7",
    ):
        assert line in mail


def test_a_mail_server_that_is_not_there_is_a_failure() -> None:
    send = notify.email("127.0.0.1", 1, security="none", user=None, password=None, sender="a@b", to=["c@d"])
    with pytest.raises(OSError, match="refused"):
        send(NOTICE)


def an_incident(rig: Rig) -> int:
    rig.enrol("cam-7")
    with rig.store.transaction() as work:
        camera = work.cameras.get("cam-7")
        incident = work.incidents.add(Symptom(Kind.PANIC, camera, "", "x"), "critical", [], rig.now)
        for channel in ("webhook", "mqtt", "gone"):
            work.incidents.add_notice(incident.id, channel, "opened", NOTICE, rig.now)
        return incident.id


def test_what_fails_waits_longer_and_longer_and_then_is_given_up(rig: Rig) -> None:
    incident = an_incident(rig)
    sent: list[str] = []
    times: list[float] = []

    def failing(_notice: Any) -> None:
        times.append(rig.now)
        raise UnavailableError("The webhook answered 500.")

    notices = Notices(
        rig.store,
        {"webhook": failing, "mqtt": lambda notice: sent.append(notice["summary"])},
        lambda: rig.now,
    )
    for _ in range(1000):
        assert not notices.process()
        rig.now += 5
    assert sent == [NOTICE["summary"]], "once, whatever happens to the others"
    assert len(times) == ATTEMPTS
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == sorted(gaps)
    by_channel = {one["channel"]: one for one in rig.incidents.incident(incident)[2]}
    assert by_channel["mqtt"]["sent_at"] is not None
    assert by_channel["webhook"]["next_at"] is None
    assert "500" in by_channel["webhook"]["error"]
    assert by_channel["gone"]["error"] == "this channel is not set up any more"


def test_what_came_through_at_last_is_not_sent_again(rig: Rig) -> None:
    incident = an_incident(rig)
    answers = [UnavailableError("no"), OSError("cable"), None]

    def send(_notice: Any) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    notices = Notices(rig.store, {"webhook": send}, lambda: rig.now)
    for _ in range(100):
        notices.process()
        rig.now += 5
    assert answers == []
    (webhook,) = [one for one in rig.incidents.incident(incident)[2] if one["channel"] == "webhook"]
    assert (webhook["attempts"], webhook["error"]) == (3, None)


def test_mail_without_a_server_refuses_to_start() -> None:
    with pytest.raises(SettingsError, match=r"notify\.smtp_host"):
        load_settings(notify={"mail_to": ["ada@example.org"]})
