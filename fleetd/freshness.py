"""Answers cameras that ask whether what they hear is the newest, and keeps the keys that prove it."""

import json
import secrets
from collections.abc import Mapping

from fleetd.errors import FleetError, UnknownCameraError
from fleetd.logs import get_logger
from fleetd.ports import Clock, Inflow, Store
from fleetd.protocol.fresh import KEY_BYTES, answer_mac
from fleetd.protocol.topics import CameraTopic, format_topic

log = get_logger(__name__)


class Freshness:
    """The service around nonces. An answer that is lost is asked for again."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def new_key(self, camera: str, *, actor: str) -> str:
        """A new key for the camera, in hex: for its config.json. The one before ends."""
        key = secrets.token_hex(KEY_BYTES)
        with self._store.transaction() as work:
            if work.cameras.get(camera) is None:
                raise UnknownCameraError(camera=camera)
            work.cameras.set_fresh_key(camera, key)
            work.access.record(actor, "camera.fresh-key", camera, {}, self._clock())
        return key

    def answer(self, nonces: Mapping[str, str], link: Inflow, prefix: str) -> int:
        """Publishes the answer to each camera's nonce; how many there were. Cameras without a key get none."""
        with self._store.reading() as work:
            known = work.cameras.fresh_keys(nonces)
            serial = work.releases.ring().serial
        now = int(self._clock())
        for camera, (key, generation) in known.items():
            nonce = nonces[camera]
            body = {
                "nonce": nonce,
                "t": now,
                "generation": generation,
                "keys": serial,
                "mac": answer_mac(bytes.fromhex(key), camera, nonce, now, generation, serial),
            }
            topic = format_topic(CameraTopic(camera, "down", "fresh"), prefix)
            try:
                link.publish_once(topic, json.dumps(body, separators=(",", ":")).encode())
            except (FleetError, ValueError, OSError) as error:
                log.warning("nonce_not_answered", camera=camera, error=str(error))
        return len(known)
