"""History for a database, made by the database itself: ten million results in a minute or two."""

import sqlalchemy as sa

from fleetd.store.chunks import CHUNK_ROWS
from fleetd.store.engine import SqlStore

STEP = 500_000  # rows in one transaction
_SERIES = {
    "sqlite": "WITH RECURSIVE s(i) AS (SELECT :a UNION ALL SELECT i + 1 FROM s WHERE i + 1 < :b) ",
    "postgresql": "WITH s AS (SELECT i FROM generate_series(:a, :b - 1) AS i) ",
}


def prefill(store: SqlStore, have: int, goal: int, cameras: int) -> None:
    """Brings `results` from `have` to `goal` rows, as if those cameras had sent them in turn, one every 90 ms.

    The rows lie in chunks like landed ones, older than anything that is landed afterwards.
    """
    series = _SERIES["sqlite" if store.is_sqlite else "postgresql"]
    at = f"(1600000000.0 + i / {cameras} * 0.09)"
    while have < goal:
        until = min(have + STEP, goal)
        span = {"a": have, "b": until}
        with store.connect(write=True) as connection:
            first = int(
                connection.execute(sa.text("SELECT coalesce(max(id), 0) + 1 FROM chunks")).scalar_one()
            )
            number = f"((i - {have}) / {CHUNK_ROWS} + {first})"
            connection.execute(
                sa.text(
                    f"INSERT INTO chunks (id, kind, first_at, last_at, rows) {series}"
                    f"SELECT {number}, 'results', min({at}), max({at}), count(*) FROM s GROUP BY {number}"
                ),
                span,
            )
            connection.execute(
                sa.text(
                    "INSERT INTO results (camera_id, boot_id, seq, at, received_at, n, label, score, inference_ms, "
                    f"frame, release_id, chunk) {series}SELECT i % {cameras} + 1, 0, i, {at}, {at}, 0, 'blue ball', "
                    f"0.9871, 74, i, 'model-7', {number} FROM s"
                ),
                span,
            )
            if not store.is_sqlite:
                following = "(SELECT max(id) + 1 FROM chunks)"
                connection.execute(
                    sa.text(f"SELECT setval(pg_get_serial_sequence('chunks', 'id'), {following}, false)")
                )
        have = until
