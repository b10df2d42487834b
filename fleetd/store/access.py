"""Tokens, the audit trail, and facts about this installation."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from fleetd.domain.records import Role, Token
from fleetd.store.tables import audit, facts, tokens

_GENESIS = "0" * 64


class SqlAccess:
    """Implements `ports.Access` inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add_token(self, name: str, role: str, token_hash: str, now: float) -> Token:
        """Stores a token's hash; a ConflictError leaves the transaction when the name is taken."""
        row = self._connection.execute(
            sa.insert(tokens)
            .values(name=name, role=role, hash=token_hash, created_at=now)
            .returning(tokens.c.id)
        )
        return Token(id=int(row.scalar_one()), name=name, role=Role(role), created_at=now, revoked_at=None)

    def token_by_hash(self, token_hash: str) -> Token | None:
        """The token, unless it was revoked."""
        query = sa.select(tokens).where(tokens.c.hash == token_hash, tokens.c.revoked_at.is_(None))
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _token(row)

    def tokens(self) -> list[Token]:
        """All tokens, revoked ones too."""
        return [_token(row) for row in self._connection.execute(sa.select(tokens).order_by(tokens.c.name))]

    def revoke_token(self, name: str, now: float) -> bool:
        """Ends a token; False when there is none of that name in force."""
        done = self._connection.execute(
            sa.update(tokens)
            .where(tokens.c.name == name, tokens.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
        return done.rowcount == 1

    def record(self, actor: str, action: str, subject: str, facts: Mapping[str, Any], now: float) -> None:
        """Appends to the audit trail. Each entry's hash covers the one before: an edit is noticed."""
        last = self._connection.execute(sa.select(audit.c.hash).order_by(audit.c.id.desc()).limit(1)).scalar()
        entry = {"at": now, "actor": actor, "action": action, "subject": subject, "facts": dict(facts)}
        previous = last or _GENESIS
        self._connection.execute(
            sa.insert(audit).values(**entry, previous=previous, hash=_entry_hash(previous, entry))
        )

    def entries(self, limit: int) -> list[Mapping[str, Any]]:
        """The newest entries first."""
        query = sa.select(audit.c.at, audit.c.actor, audit.c.action, audit.c.subject, audit.c.facts)
        return [
            row._asdict() for row in self._connection.execute(query.order_by(audit.c.id.desc()).limit(limit))
        ]

    def first_broken_entry(self) -> int | None:
        """The number of the first audit entry that does not fit the one before it, or None."""
        previous = _GENESIS
        for row in self._connection.execute(sa.select(audit).order_by(audit.c.id)):
            entry = {name: getattr(row, name) for name in ("at", "actor", "action", "subject", "facts")}
            if row.previous != previous or row.hash != _entry_hash(previous, entry):
                return int(row.id)
            previous = row.hash
        return None

    def get_fact(self, name: str) -> str | None:
        """A fact about this installation."""
        value = self._connection.execute(sa.select(facts.c.value).where(facts.c.name == name)).scalar()
        return None if value is None else str(value)

    def set_fact(self, name: str, value: str) -> None:
        """Notes a fact, replacing the old one."""
        changed = self._connection.execute(sa.update(facts).where(facts.c.name == name).values(value=value))
        if changed.rowcount == 0:
            self._connection.execute(sa.insert(facts).values(name=name, value=value))


def _token(row: sa.Row[Any]) -> Token:
    return Token(
        id=row.id, name=row.name, role=Role(row.role), created_at=row.created_at, revoked_at=row.revoked_at
    )


def _entry_hash(previous: str, entry: Mapping[str, Any]) -> str:
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256((previous + text).encode()).hexdigest()
