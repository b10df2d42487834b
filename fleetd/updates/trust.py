"""Which keys may sign, at fleetd and on cameras. fleetd only verifies; private keys never come here."""

from collections.abc import Callable

from fleetd.bundles.errors import KeyFileError
from fleetd.bundles.keyrecords import check_record
from fleetd.bundles.signing import check_public, key_id
from fleetd.domain.records import KeyRing, RolloutState, SigningKey
from fleetd.errors import ConflictError, InvalidError, NotFoundError
from fleetd.logs import get_logger
from fleetd.ports import Clock, Store, UnitOfWork
from fleetd.protocol.manifest import KEY_ID_BYTES, MAGIC
from fleetd.updates.changes import halt

log = get_logger(__name__)


class Trust:
    """The part of `ota` about keys. Until the first key record, keys are what an admin registers here and what
    cameras are provisioned with; from then on the records say it, to fleetd and to cameras alike.
    """

    def __init__(self, store: Store, clock: Clock, wake: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake

    def add_key(self, public_hex: str, name: str, *, actor: str) -> SigningKey:
        """Accepts releases signed with this public key (x || y in hex) from now on."""
        now = self._clock()
        try:
            public = bytes.fromhex(public_hex)
            check_public(public)
        except (ValueError, KeyFileError) as error:
            raise InvalidError(f"That is no public key: {error} Nothing was changed.") from error
        key = SigningKey(key_id(public).hex(), public.hex(), name, now, None)
        with self._store.transaction() as work:
            keys = work.releases.keys()
            known = next((one for one in keys if one.key_id == key.key_id), None)
            if known is not None:
                state = "was revoked" if known.revoked_at is not None else "is accepted already"
                raise ConflictError(f"The key {key.key_id} {state}. Nothing was changed.", key=key.key_id)
            if serial := work.releases.ring().serial:
                raise ConflictError(
                    f"Cameras go by key record {serial}, which does not name the key {key.key_id}. Nothing was "
                    "changed. `fleetctl keys rotate --add PUBLIC` makes them and fleetd accept it.",
                    key=key.key_id,
                )
            work.releases.add_key(key)
            work.access.record(actor, "key.add", key.key_id, {"name": name}, now)
        return key

    def keys(self) -> list[SigningKey]:
        """All keys, revoked ones too."""
        with self._store.reading() as work:
            return work.releases.keys()

    def ring(self) -> KeyRing:
        """What cameras are to trust."""
        with self._store.reading() as work:
            return work.releases.ring()

    def revoke_key(self, key_id: str, *, actor: str) -> None:
        """Accepts nothing more from this key and halts what is under way with it. Cameras keep what they run,
        and go on trusting the key until a key record says otherwise.
        """
        now = self._clock()
        with self._store.transaction() as work:
            if not work.releases.revoke_key(key_id, now):
                raise NotFoundError(f"No key {key_id} is in force. Nothing was changed.", key=key_id)
            work.access.record(actor, "key.revoke", key_id, {}, now)
            _halt_signed_by(work, {key_id}, now, actor)
        self._wake()

    def add_record(self, record: bytes, name: str, *, actor: str) -> KeyRing:
        """Makes cameras and fleetd trust what a signed key record says. The same record again changes nothing."""
        now = self._clock()
        with self._store.transaction() as work:
            ring = work.releases.ring()
            if record in work.releases.records().values():
                return ring
            # A key that was revoked here may still sign its own end: cameras know no other before the record.
            keys = work.releases.keys()
            signers = ring.signers if ring.serial else [one.public for one in keys]
            checked = check_record(record, map(bytes.fromhex, signers))
            if checked.serial != ring.serial + 1 or not ring.epoch <= checked.epoch <= ring.epoch + 1:
                raise ConflictError(
                    f"The key record has number {checked.serial} and epoch {checked.epoch}; the next one is number "
                    f"{ring.serial + 1} in epoch {ring.epoch} or {ring.epoch + 1}. Nothing was changed; sign it anew.",
                    serial=ring.serial,
                    epoch=ring.epoch,
                )
            new = KeyRing(checked.serial, checked.epoch, tuple(checked.keys), tuple(checked.recovery))
            signed_by = record[len(MAGIC) : len(MAGIC) + KEY_ID_BYTES].hex()
            self._follow(work, new, name, now, actor)
            work.releases.add_record(new, record, signed_by, actor, now)
            facts = {"epoch": new.epoch, "signed_by": signed_by, "keys": [_id(one) for one in new.keys]}
            work.access.record(actor, "key.record", str(new.serial), facts, now)
        log.info("key_record_added", serial=new.serial, epoch=new.epoch, actor=actor)
        self._wake()
        return new

    def _follow(self, work: UnitOfWork, ring: KeyRing, name: str, now: float, actor: str) -> None:
        """Makes fleetd's own list say the same as the record."""
        keys = work.releases.keys()
        known = {one.key_id: one for one in keys}
        named = {_id(public): public for public in ring.keys}
        for one, public in named.items():
            if one not in known:
                work.releases.add_key(SigningKey(one, public, name, now, None))
            elif known[one].revoked_at is not None:
                raise ConflictError(
                    f"The key {one} was revoked and cannot come back. Nothing was changed.", key=one
                )
        dropped = {one for one, key in known.items() if one not in named and key.revoked_at is None}
        for one in dropped:
            work.releases.revoke_key(one, now)
            work.access.record(actor, "key.revoke", one, {"record": ring.serial}, now)
        _halt_signed_by(work, dropped, now, actor)


def _id(public: str) -> str:
    return key_id(bytes.fromhex(public)).hex()


def _halt_signed_by(work: UnitOfWork, keys: set[str], now: float, actor: str) -> None:
    signed = {release.id: release.key_id for release in work.releases.all() if release.key_id in keys}
    for rollout in work.rollouts.all({RolloutState.RUNNING, RolloutState.PAUSED}):
        if rollout.release_id in signed:
            key = signed[rollout.release_id]
            halt(work, rollout, f"The signing key {key} was revoked.", now, actor)
