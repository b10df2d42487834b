"""Who the cameras are and what they last said: enrolment, tags, presence, LED sightings, history, commands."""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fleetd.domain.passwords import SALT_BYTES, password_hash
from fleetd.domain.presence import Presence, PresenceRules, presence_of
from fleetd.domain.records import Camera, ImageFacts, Sighting
from fleetd.domain.target import matches, parse_target
from fleetd.errors import ConflictError, InvalidError, NotFoundError, UnknownCameraError
from fleetd.ports import Clock, Store, UnitOfWork
from fleetd.protocol.ids import is_camera_id

SECRET_BYTES = 20  # 160 random bits: nothing to guess, so one round of SHA-256 is enough to store
COMMANDS = ("benchmark", "identify", "reboot", "snapshot")
COMMAND_CHARS = 3000  # leaves room for the rest of a `down/cmd` of 4 KB
TAG = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
LED_COLORS = ("off", "red", "green", "blue", "cyan", "magenta", "yellow", "white", "unknown")
LED_PATTERNS = ("solid", "blink", "blink-fast", "double-blink", "cycle", "off", "unknown")
LED_SOURCES = ("usb", "operator", "inference")


@dataclass(frozen=True, slots=True)
class CameraView:
    """A camera with what the clock makes of its silence."""

    camera: Camera
    presence: Presence
    silent_s: float | None


class Registry:
    """The service around cameras.

    `wake` is called when there is something to publish, `accounts_changed` when the broker has to let somebody
    in, or (True) somebody not any more.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        rules: PresenceRules | None = None,
        wake: Callable[[], None] = lambda: None,
        accounts_changed: Callable[[bool], None] = lambda _urgent: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules or PresenceRules()
        self._wake = wake
        self._accounts_changed = accounts_changed

    def enrol(self, name: str, *, actor: str, tags: Iterable[str] = (), note: str = "") -> tuple[Camera, str]:
        """Makes a camera known and answers it with its credential, which is shown this once only."""
        if not is_camera_id(name):
            raise InvalidError(
                f"{name!r} cannot be a camera's name: use 1 to 63 lower case letters, digits and dashes, "
                "beginning with a letter or digit.",
                name=name,
            )
        wanted = _tags(tags)
        secret = secrets.token_hex(SECRET_BYTES)
        with self._store.transaction() as work:
            if work.cameras.get(name) is not None:
                raise ConflictError(
                    f"A camera named {name} is enrolled already. Nothing was changed. "
                    "`fleetctl cameras rotate-secret` gives it a new credential.",
                    camera=name,
                )
            if name in work.accounts.people():
                raise ConflictError(
                    f"{name} reads over MQTT (`fleetctl mqtt-users list`), so a camera cannot have that name. "
                    "Nothing was changed.",
                    camera=name,
                )
            camera = work.cameras.add(name, _hash(secret), self._clock(), mqtt_hash=_mqtt_hash(secret))
            work.cameras.set_tags(camera.id, wanted)
            if note:
                work.cameras.set_note(camera.id, note)
            work.access.record(actor, "camera.enrol", name, {"tags": sorted(wanted)}, self._clock())
            camera = self._get(work, name)
        self._accounts_changed(False)
        return camera, secret

    def rotate_secret(self, name: str, *, actor: str) -> str:
        """Gives a camera a new credential; the old one ends. A revoked camera has to be reinstated first."""
        with self._store.transaction() as work:
            camera = self._get(work, name)
            if camera.revoked_at is not None:
                raise ConflictError(
                    f"{name} was revoked, so it gets no new credential by itself. Nothing was changed. "
                    "`fleetctl cameras reinstate` takes it back.",
                    camera=name,
                )
            secret = self._new_secret(work, camera)
            work.access.record(actor, "camera.rotate-secret", name, {}, self._clock())
        self._accounts_changed(True)
        return secret

    def revoke(self, name: str, *, actor: str) -> None:
        """Cuts a camera off, e.g. a stolen one: its credential ends at once, what it sends is not stored."""
        with self._store.transaction() as work:
            camera = self._get(work, name)
            if camera.revoked_at is not None:
                raise ConflictError(f"{name} is revoked already. Nothing was changed.", camera=name)
            work.cameras.revoke(camera.id, self._clock())
            work.access.record(actor, "camera.revoke", name, {}, self._clock())
        self._accounts_changed(True)

    def reinstate(self, name: str, *, actor: str) -> str:
        """Takes a revoked camera back, with a new credential."""
        with self._store.transaction() as work:
            camera = self._get(work, name)
            if camera.revoked_at is None:
                raise ConflictError(
                    f"{name} is not revoked. Nothing was changed. "
                    "`fleetctl cameras rotate-secret` gives it a new credential.",
                    camera=name,
                )
            secret = self._new_secret(work, camera)
            work.cameras.forget_unknown(name)  # what it sent meanwhile counted as a stranger's
            work.access.record(actor, "camera.reinstate", name, {}, self._clock())
        self._accounts_changed(True)
        return secret

    def _new_secret(self, work: UnitOfWork, camera: Camera) -> str:
        secret = secrets.token_hex(SECRET_BYTES)
        work.cameras.set_secret(camera.id, _hash(secret), _mqtt_hash(secret))
        return secret

    def remove(self, name: str, *, actor: str) -> None:
        """Forgets a camera and everything it sent."""
        with self._store.transaction() as work:
            camera = self._get(work, name)
            work.cameras.remove(camera.id, self._clock())
            work.access.record(actor, "camera.remove", name, {}, self._clock())
        self._accounts_changed(True)
        self._wake()

    def tag(
        self, name: str, *, add: Iterable[str] = (), remove: Iterable[str] = (), actor: str
    ) -> CameraView:
        """Adds and removes tags."""
        more, less = _tags(add), frozenset(remove)
        with self._store.transaction() as work:
            camera = self._get(work, name)
            tags = (camera.tags | more) - less
            if tags != camera.tags:
                work.cameras.set_tags(camera.id, tags)
                work.access.record(actor, "camera.tag", name, {"tags": sorted(tags)}, self._clock())
            return self._view(self._get(work, name))

    def move(self, name: str, site: str, *, actor: str) -> CameraView:
        """Says at which site a camera is; an empty name: at none."""
        if site and not TAG.fullmatch(site):
            raise InvalidError(
                f"{site!r} cannot be a site: use lower case letters, digits, dots, dashes and underscores, at most 63.",
                site=site,
            )
        with self._store.transaction() as work:
            camera = self._get(work, name)
            if site != camera.site:
                work.cameras.set_site(camera.id, site)
                work.access.record(actor, "camera.move", name, {"site": site}, self._clock())
            return self._view(self._get(work, name))

    def camera(self, name: str) -> CameraView:
        """One camera; UnknownCameraError when it is not enrolled."""
        with self._store.reading() as work:
            return self._view(self._get(work, name))

    def cameras(self, target: str | None = None) -> list[CameraView]:
        """All cameras, or those a target query names, by name."""
        query = parse_target(target) if target else None
        with self._store.reading() as work:
            views = [self._view(camera) for camera in work.cameras.all()]
        if query is None:
            return views
        return [view for view in views if matches(query, view.camera, view.presence)]

    def report_led(
        self, name: str, *, color: str, pattern: str, source: str, reason: str | None, actor: str
    ) -> None:
        """Notes what somebody, or a USB probe, has seen a camera's LED do."""
        for value, known, what in (
            (color, LED_COLORS, "colour"),
            (pattern, LED_PATTERNS, "pattern"),
            (source, LED_SOURCES, "source"),
        ):
            if value not in known:
                raise InvalidError(f"{value!r} is no LED {what}. Known: {', '.join(known)}.", value=value)
        with self._store.transaction() as work:
            camera = self._get(work, name)
            now = self._clock()
            work.history.add_sighting(camera.id, now, color, pattern, source, reason)
            if color != "unknown":  # what USB shows is no light
                work.cameras.set_led(camera.id, color, pattern, reason, now)
            facts = {"color": color, "pattern": pattern, "source": source}
            work.access.record(actor, "camera.led", name, facts, now)

    def sightings(self, name: str | None, *, since: float | None = None, limit: int = 100) -> list[Sighting]:
        """What LEDs were seen to do, newest first."""
        with self._store.reading() as work:
            if name is not None:
                self._get(work, name)
            return work.history.sightings(camera=name, since=since, limit=limit)

    def results(
        self,
        *,
        camera: str | None = None,
        since: float | None = None,
        until: float | None = None,
        label: str | None = None,
        limit: int = 100,
    ) -> list[Mapping[str, Any]]:
        """Classifications, newest first."""
        with self._store.reading() as work:
            if camera is not None:
                self._get(work, camera)
            return work.history.results(camera=camera, since=since, until=until, label=label, limit=limit)

    def telemetry(
        self,
        *,
        camera: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
    ) -> list[Mapping[str, Any]]:
        """Telemetry, newest first."""
        with self._store.reading() as work:
            if camera is not None:
                self._get(work, camera)
            return work.history.telemetry(camera=camera, since=since, until=until, limit=limit)

    def events(
        self,
        *,
        camera: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
    ) -> list[Mapping[str, Any]]:
        """Boots, exceptions and other events, newest first."""
        with self._store.reading() as work:
            if camera is not None:
                self._get(work, camera)
            return work.history.events(camera=camera, since=since, until=until, limit=limit)

    def images(self, name: str, *, limit: int = 50) -> list[ImageFacts]:
        """The pictures that a camera sent, as far as they arrived in full, newest first."""
        with self._store.reading() as work:
            self._get(work, name)
            return work.images.all(name, limit=limit)

    def image(self, name: str, image: str) -> bytes:
        """A picture's JPEG bytes, checked against the digest that the camera gave them."""
        with self._store.reading() as work:
            self._get(work, name)
            found = work.images.data(name, image)
        if found is None or hashlib.sha256(found[0]).hexdigest() != found[1]:
            raise NotFoundError(
                f"There is no picture {image} of {name}, or not all of it yet. Try again in a moment; "
                "the newest are kept.",
                camera=name,
                image=image,
            )
        return found[0]

    def label_counts(self, *, camera: str | None = None, since: float) -> list[Mapping[str, Any]]:
        """How often each camera saw each label with each release since then."""
        with self._store.reading() as work:
            if camera is not None:
                self._get(work, camera)
            return work.history.labels(camera=camera, since=since)

    def unknown(self, limit: int = 100) -> list[Mapping[str, Any]]:
        """Names that publish without being enrolled."""
        with self._store.reading() as work:
            return work.cameras.unknown(limit)

    def dead_letters(self, limit: int = 100) -> list[Mapping[str, Any]]:
        """Messages that could not be stored as what they claim to be."""
        with self._store.reading() as work:
            return work.history.dead_letters(limit=limit)

    def counts(self) -> Mapping[str, int]:
        """How much is stored of each kind."""
        with self._store.reading() as work:
            return work.history.counts()

    def send_command(
        self,
        name: str,
        command: str,
        *,
        args: Mapping[str, Any] | None = None,
        ttl_s: int = 60,
        actor: str,
    ) -> str:
        """Queues a command for a camera and answers its id. It is dropped when it could not be sent in time."""
        if command not in COMMANDS:
            raise InvalidError(f"{command!r} is no command. Known: {', '.join(COMMANDS)}.", command=command)
        if not 1 <= ttl_s <= 86400:
            raise InvalidError("A command stays good for 1 to 86400 seconds.", ttl_s=ttl_s)
        try:
            size = len(json.dumps(dict(args or {}), allow_nan=False))
        except ValueError:
            size = COMMAND_CHARS + 1
        if size > COMMAND_CHARS:
            raise InvalidError(
                f"The arguments of a command are at most {COMMAND_CHARS} characters of JSON, without NaN. "
                "Nothing was sent."
            )
        command_id = secrets.token_hex(8)
        with self._store.transaction() as work:
            camera = self._get(work, name)
            now = self._clock()
            work.commands.add(command_id, camera.id, command, args or {}, ttl_s, actor, now)
            work.access.record(actor, f"camera.{command}", name, {"command": command_id}, now)
        self._wake()
        return command_id

    def command(self, command_id: str) -> Mapping[str, Any]:
        """What became of a command: queued, sent, done, failed or expired, with the camera's reply."""
        with self._store.reading() as work:
            row = work.commands.get(command_id)
            if row is None:
                raise NotFoundError(f"There is no command {command_id}.", command=command_id)
            replies = work.history.replies(command_id=command_id)
        own = [reply for reply in replies if reply["camera"] == row["camera"]]
        if own:
            state = "done" if own[0]["ok"] else "failed"
        elif self._clock() > row["created_at"] + row["ttl_s"]:
            state = "expired"
        else:
            state = "sent" if row["sent_at"] is not None else "queued"
        reply = own[0] if own else None
        return {
            "id": row["id"],
            "camera": row["camera"],
            "command": row["name"],
            "state": state,
            "created_at": row["created_at"],
            "sent_at": row["sent_at"],
            "reason": reply["reason"] if reply else None,
            "data": reply["data"] if reply else None,
        }

    def _get(self, work: UnitOfWork, name: str) -> Camera:
        camera = work.cameras.get(name)
        if camera is None:
            raise UnknownCameraError(
                f"No camera named {name} is enrolled. `fleetctl cameras list` shows those that are.",
                camera=name,
            )
        return camera

    def _view(self, camera: Camera) -> CameraView:
        now = self._clock()
        return CameraView(
            camera=camera,
            presence=presence_of(camera, now, self._rules),
            silent_s=None if camera.seen_at is None else max(0.0, now - camera.seen_at),
        )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _mqtt_hash(secret: str) -> str:
    return password_hash(secret, secrets.token_bytes(SALT_BYTES))


def _tags(tags: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(tags)
    for tag in wanted:
        if not TAG.fullmatch(tag):
            raise InvalidError(
                f"{tag!r} cannot be a tag: use lower case letters, digits, dots, dashes and underscores, at most 63.",
                tag=tag,
            )
    return wanted
