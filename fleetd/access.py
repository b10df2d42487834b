"""Who may use the API, and the trail of what they did."""

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from fleetd.domain.records import Role, Token
from fleetd.errors import AccessError, ConflictError, InvalidError, NotFoundError
from fleetd.ports import Clock, Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")


class AccessControl:
    """API tokens. A token is 256 random bits, shown once and stored as a SHA-256 hash."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def authenticate(self, secret: str) -> Token:
        """The token that `secret` belongs to; AccessError when there is none in force."""
        with self._store.reading() as work:
            token = work.access.token_by_hash(_hash(secret))
        if token is None:
            raise AccessError("That token is not known, or it was revoked.")
        return token

    def create_token(self, name: str, role: Role, *, actor: str) -> str:
        """Makes a token and answers its secret, which is shown this once only."""
        if not _NAME.fullmatch(name):
            raise InvalidError(
                f"{name!r} cannot name a token: letters, digits, and . _ @ - only, at most 63."
            )
        secret = _new_secret()
        with self._store.transaction() as work:
            if any(token.name == name for token in work.access.tokens()):
                raise ConflictError(f"There is a token named {name} already (revoked ones keep their name).")
            work.access.add_token(name, role, _hash(secret), self._clock())
            work.access.record(actor, "token.create", name, {"role": role.value}, self._clock())
        return secret

    def make_first_admin(self, keep: Callable[[str], None]) -> bool:
        """Makes a first admin token when there is no token at all yet; False when there is one.

        `keep` is given the secret before the token is in force: being killed in between leaves a secret that
        opens nothing and is replaced at the next start, never a token that nobody knows.
        """
        with self._store.reading() as work:
            if work.access.tokens():
                return False
        secret = _new_secret()
        with self._store.transaction() as work:
            if work.access.tokens():
                return False
            keep(secret)
            work.access.add_token("admin", Role.ADMIN, _hash(secret), self._clock())
            work.access.record("fleetd", "token.create", "admin", {"role": Role.ADMIN.value}, self._clock())
        return True

    def tokens(self) -> list[Token]:
        """All tokens by name, revoked ones too."""
        with self._store.reading() as work:
            return work.access.tokens()

    def revoke_token(self, name: str, *, actor: str) -> None:
        """Ends a token at once."""
        with self._store.transaction() as work:
            if not work.access.revoke_token(name, self._clock()):
                raise NotFoundError(f"No token named {name} is in force.", token=name)
            work.access.record(actor, "token.revoke", name, {}, self._clock())

    def audit(self, limit: int = 100) -> list[Mapping[str, Any]]:
        """The newest audit entries first."""
        with self._store.reading() as work:
            return work.access.entries(limit)


def _new_secret() -> str:
    return "fleet_" + secrets.token_urlsafe(32)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
