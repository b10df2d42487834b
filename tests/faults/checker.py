"""The one checker of all fault tests: what cameras know against what is in the database."""

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from fleetd.domain.ranges import Ranges
from fleetd.simulator.thin import Truth
from fleetd.store import tables
from fleetd.store.engine import SqlStore


@dataclass
class Verdict:
    """How much was looked at, and every violation in words."""

    receipted: int
    stored: int
    violations: list[str]


def check(store: SqlStore, truths: Iterable[Truth]) -> Verdict:
    """Every receipted message is stored exactly once, nothing was invented, no gap that nobody declared, and the
    database is whole.
    """
    known = {(truth.camera, truth.boot): truth for truth in truths}
    violations: list[str] = []
    rows: dict[tuple[str, str], dict[int, list[str]]] = {}
    with store.connect(write=False) as connection:
        if store.is_sqlite:
            for pragma in ("integrity_check", "foreign_key_check"):
                found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA {pragma}")]
                violations += [f"{pragma}: {one}" for one in found if one != "ok"]
        query = (
            sa.select(
                tables.cameras.c.name, tables.boots.c.boot, tables.results.c.seq, tables.results.c.label
            )
            .join(tables.cameras, tables.cameras.c.id == tables.results.c.camera_id)
            .join(tables.boots, tables.boots.c.id == tables.results.c.boot_id)
        )
        for name, boot, seq, label in connection.execute(query):
            rows.setdefault((name, boot), {}).setdefault(seq, []).append(label)
        marks = {
            (name, boot): Ranges.from_json(ranges)
            for name, boot, ranges in connection.execute(
                sa.select(tables.cameras.c.name, tables.boots.c.boot, tables.boots.c.ranges).join(
                    tables.cameras, tables.cameras.c.id == tables.boots.c.camera_id
                )
            )
        }
        chunked = connection.execute(
            sa.select(sa.func.coalesce(sa.func.sum(tables.chunks.c.rows), 0)).where(
                tables.chunks.c.kind == "results"
            )
        ).scalar_one()
    stored = sum(len(labels) for seqs in rows.values() for labels in seqs.values())
    if chunked != stored:
        violations.append(f"chunks say {chunked} results, there are {stored}")
    for key, seqs in rows.items():
        truth = known.get(key)
        for seq, labels in seqs.items():
            if len(labels) != 1:
                violations.append(f"{key} {seq}: stored {len(labels)} times")
            if truth is None or truth.sent.get(seq) != labels[0]:
                violations.append(f"{key} {seq}: {labels[0]} was never sent")
            if seq not in marks[key]:
                violations.append(f"{key} {seq}: stored, but not marked so")
    for key, truth in known.items():
        have = rows.get(key, {})
        mark = marks.get(key, Ranges())
        for seq in truth.receipted:
            if seq not in mark:
                violations.append(f"{key} {seq}: receipted, but not marked as stored")
            if seq in truth.sent and seq not in have:
                violations.append(f"{key} {seq}: receipted, but not stored")
        for seq in truth.sent:
            if seq in mark and seq not in have and seq not in truth.dropped:
                violations.append(f"{key} {seq}: marked as stored, but it is not, and nobody gave it up")
    return Verdict(sum(len(truth.receipted) for truth in known.values()), stored, violations)
