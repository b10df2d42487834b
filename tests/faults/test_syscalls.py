"""A sample of `make faults`: work killed at system calls that write. And the checker, which must notice things."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleetd.store import tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Landing
from tests.faults import syscalls
from tests.faults.checker import check
from tests.faults.syscalls import CAMERAS, NOW, messages, truths, walk


@pytest.mark.parametrize(("name", "every"), [("landing", 45), ("upkeep", 40), ("migration", 60)])
def test_work_that_is_killed_at_a_system_call_keeps_its_promises(
    name: str, every: int, tmp_path: Path
) -> None:
    if not syscalls.works():
        pytest.skip("strace cannot trace here (not Linux, or ptrace is forbidden)")
    seed = random.SystemRandom().randrange(10**6)
    counts, violations = walk(name, tmp_path, random.Random(seed), every=every)
    assert not violations, f"seed {seed}: {violations}"
    assert counts["kill"] >= 1


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    store = SqlStore(database_url)
    with store.transaction() as work:
        for number in range(CAMERAS):
            work.cameras.add(f"cam-{number}", None, 0.0)
    yield store
    store.close()


def test_the_checker_is_content_with_what_was_landed(store: SqlStore) -> None:
    batches = messages(random.Random(1), NOW)
    landing = Landing(store)
    for batch in batches:
        landing.write(batch)
    verdict = check(store, truths(batches, len(batches)))
    assert verdict.violations == []
    assert verdict.stored > 10
    assert verdict.receipted > verdict.stored


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM results WHERE id = (SELECT max(id) FROM results)", "receipted, but not stored"),
        ("UPDATE results SET label = 'ghost' WHERE id = (SELECT max(id) FROM results)", "never sent"),
        ("UPDATE boots SET ranges = '[]'", "receipted, but not marked"),
        (
            """INSERT INTO results (camera_id, boot_id, seq, at, received_at, n, label, score, chunk)
            SELECT camera_id, boot_id, seq, at, received_at, n, label, score, chunk FROM results
            WHERE id = (SELECT max(id) FROM results)""",
            "stored 2 times",
        ),
        ("UPDATE chunks SET rows = rows + 1", "chunks say"),
    ],
)
def test_the_checker_notices_every_kind_of_damage(store: SqlStore, damage: str, words: str) -> None:
    batches = messages(random.Random(1), NOW)
    landing = Landing(store)
    for batch in batches:
        landing.write(batch)
    with store.connect(write=True) as connection:
        connection.execute(sa.text(damage))
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.results)).scalar_one() > 0
    assert any(words in one for one in check(store, truths(batches, len(batches))).violations)


def test_the_checker_notices_an_acknowledgement_that_came_too_early(store: SqlStore) -> None:
    batches = messages(random.Random(1), NOW)
    Landing(store).write(batches[0])
    assert check(store, truths(batches, 1)).violations == []
    assert any("receipted, but not" in one for one in check(store, truths(batches, 2)).violations)
