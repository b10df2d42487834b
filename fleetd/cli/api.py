"""Asking fleetd over HTTP. The only place that knows httpx; every failure leaves as a CliError."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from fleetd.cli.errors import ERROR, NOT_ALLOWED, UNUSABLE, CliError, UnreachableError
from fleetd.cli.server import Server, is_loopback
from fleetd.cli.text import safe

PREFIX: Final = "/api/v1"
CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0
UPLOAD_SECONDS: Final = 300.0
MESSAGE_CHARS: Final = 1000

_TODO: Final = {
    "unauthenticated": "Run `fleetctl login URL` with a token that is in force.",
    "access_denied": "Ask an admin, or use a token with the role that it takes.",
    "wrong_host": "Use a host name that fleetd answers under, or add this one to its allowed hosts.",
    "unavailable": "Try again shortly; `fleetctl status` shows how fleetd is doing.",
    "broker_unavailable": "Try again shortly; `fleetctl status` shows how fleetd is doing.",
    "store_unavailable": "Try again shortly; fleetd's log says more.",
    "internal": "fleetd's log says more.",
    "unknown_path": "This fleetd may be older or newer than fleetctl: compare their versions.",
    "method_not_allowed": "This fleetd may be older or newer than fleetctl: compare their versions.",
}


class Api:
    """One server, one token, one connection."""

    def __init__(self, server: Server, transport: httpx.BaseTransport | None = None) -> None:
        self.server = server
        self._client = httpx.Client(
            base_url=server.url + PREFIX,
            headers={"Authorization": f"Bearer {server.token}", "Accept": "application/json"},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=False,  # the token goes to this server and nowhere else
            trust_env=not is_loopback(server.url),  # no proxy stands between this machine and itself
            transport=transport,
        )

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, *path: str | int, **query: str | float | None) -> Any:
        """What the server answers, as Python values. Parameters that are None are left out."""
        wanted = {name: value for name, value in query.items() if value is not None}
        return self._json(self._send("GET", path, params=wanted))

    def post(self, *path: str | int, body: Mapping[str, Any] | None = None) -> Any:
        """Changes something and answers what the server says about it."""
        return self._json(self._send("POST", path, json=body))

    def patch(self, *path: str | int, body: Mapping[str, Any]) -> Any:
        """Changes part of something."""
        return self._json(self._send("PATCH", path, json=body))

    def put(self, *path: str | int, body: Mapping[str, Any]) -> Any:
        """Sets something."""
        return self._json(self._send("PUT", path, json=body))

    def delete(self, *path: str | int) -> None:
        """Removes something."""
        self._send("DELETE", path)

    def upload(self, manifest: bytes, encodings: Sequence[bytes]) -> Any:
        """Uploads a signed release."""
        files = [("manifest", ("manifest", manifest, "application/octet-stream"))]
        files += [
            ("encodings", (f"encoding-{number}", data, "application/octet-stream"))
            for number, data in enumerate(encodings)
        ]
        timeout = httpx.Timeout(UPLOAD_SECONDS, connect=CONNECT_SECONDS)
        return self._json(self._send("POST", ("releases",), files=files, timeout=timeout))

    def download(self, *path: str | int, limit: int) -> bytes:
        """The bytes at an address; CliError when there are more than `limit`."""
        headers = {"Accept": "application/octet-stream", "Accept-Encoding": "identity"}
        taken = bytearray()
        with self._reaching(), self._client.stream("GET", _address(path), headers=headers) as response:
            if not response.is_success:
                response.read()
                raise _refusal(response)
            for piece in response.iter_bytes():
                taken += piece
                if len(taken) > limit:
                    raise CliError(f"{self.server.url} answers with more than {limit} bytes.")
        return bytes(taken)

    def _send(self, method: str, path: Sequence[str | int], **options: Any) -> httpx.Response:
        with self._reaching():
            response = self._client.request(method, _address(path), **options)
        if not response.is_success:
            raise _refusal(response)
        return response

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turns whatever keeps the server from answering into a CliError."""
        try:
            yield
        except httpx.ConnectError as error:
            raise UnreachableError(
                f"fleetd cannot be reached at {self.server.url}: {safe(error)}.",
                f"Is it running? The address came from {self.server.origin}.",
            ) from error
        except httpx.TimeoutException as error:
            raise UnreachableError(
                f"fleetd at {self.server.url} did not answer in time.",
                "Look again with `fleetctl status`: what was asked for may have happened.",
            ) from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise UnreachableError(
                f"The connection to fleetd at {self.server.url} failed: {safe(error)}.",
                "Look again with `fleetctl status`: what was asked for may have happened.",
            ) from error

    def _json(self, response: httpx.Response) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise CliError(
                f"{self.server.url} answers, but not as fleetd does.", "Check the address and its port."
            ) from error


def _address(path: Sequence[str | int]) -> str:
    """Every part is quoted whole: a name with a slash cannot become another address."""
    return "/" + "/".join(quote(str(part), safe="") for part in path)


def _refusal(response: httpx.Response) -> CliError:
    """The server's error as ours."""
    status = response.status_code
    try:
        found = response.json()["error"]
        code, message = str(found["code"]), str(found["message"])
    except (ValueError, KeyError, TypeError):
        return CliError(
            f"The server answered {status} without saying why.",
            "Check that the address is fleetd's.",
            exit_code=NOT_ALLOWED if status in {401, 403} else ERROR,
        )
    exit_code = NOT_ALLOWED if status in {401, 403, 421} else UNUSABLE if status == 422 else ERROR
    return CliError(safe(message)[:MESSAGE_CHARS], _TODO.get(code, ""), exit_code=exit_code, code=safe(code))
