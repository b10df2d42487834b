"""Telling people and programs of incidents: webhook, e-mail, MQTT. One small sender each.

A sender takes a notice (see docs/incidents.md) and raises OSError or FleetError when it did not get through.
"""

import hashlib
import hmac
import http.client
import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from typing import Any, Final, Literal

from fleetd.errors import UnavailableError
from fleetd.ports import Publisher
from fleetd.protocol.topics import DaemonTopic, format_topic

SECONDS: Final = 15.0
SUBJECT_CHARS: Final = 150

Notice = Mapping[str, Any]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A notice goes to the address that was set, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def webhook(url: str, secret: str | None) -> Callable[[Notice], None]:
    """Posts notices as JSON; with a secret, signed in X-Fleetd-Signature."""
    opener = urllib.request.build_opener(_NoRedirects)

    def send(notice: Notice) -> None:
        body = json.dumps(notice, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "fleetd"}
        if secret is not None:
            headers["X-Fleetd-Signature"] = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310  # checked: http(s) only
        try:
            with opener.open(request, timeout=SECONDS):
                pass
        except urllib.error.HTTPError as error:
            raise UnavailableError(f"The webhook answered {error.code}.") from error
        except http.client.HTTPException as error:
            raise UnavailableError(f"The webhook answered no HTTP ({type(error).__name__}).") from error

    return send


def email(
    host: str,
    port: int,
    *,
    security: Literal["starttls", "tls", "none"],
    user: str | None,
    password: str | None,
    sender: str,
    to: Sequence[str],
) -> Callable[[Notice], None]:
    """Sends notices as plain e-mails."""

    def send(notice: Notice) -> None:
        message = EmailMessage()
        message["Subject"] = _one_line(f"[fleetd] {notice['what']}: {notice['summary']}")[:SUBJECT_CHARS]
        message["From"] = sender
        message["To"] = ", ".join(to)
        message.set_content(in_words(notice))
        context = ssl.create_default_context()
        try:
            if security == "tls":
                server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=SECONDS, context=context)
            else:
                server = smtplib.SMTP(host, port, timeout=SECONDS)
            with server:
                if security == "starttls":
                    server.starttls(context=context)
                if user is not None:
                    server.login(user, password or "")
                server.send_message(message)
        except smtplib.SMTPException as error:  # its text may repeat what we said, but not the password
            raise UnavailableError(f"The mail server refused: {type(error).__name__}.") from error

    return send


def mqtt(publisher: Publisher, prefix: str) -> Callable[[Notice], None]:
    """Publishes notices on `_fleetd/event`, not retained."""
    topic = format_topic(DaemonTopic("event"), prefix)

    def send(notice: Notice) -> None:
        body = json.dumps({"event": "incident", **notice}, separators=(",", ":")).encode()
        publisher.publish(topic, body, retain=False)

    return send


def in_words(notice: Notice) -> str:
    """A notice as an e-mail says it."""
    lines = [str(notice["summary"]) + ".", ""]
    if notice.get("outcome"):
        lines.append(f"Closed: {notice['outcome']}.")
    else:
        if notice.get("cause"):
            lines.append(f"Most likely: {notice['cause']}.")
        if notice.get("todo"):
            lines.append(f"First: {notice['todo']}")
    lines += ["", f"fleetctl incidents show {notice['incident']}"]
    if notice.get("camera") and not notice.get("outcome"):
        lines.append(f"fleetctl recover {notice['camera']}")
    return "\n".join(_one_line(line) for line in lines) + "\n"


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
