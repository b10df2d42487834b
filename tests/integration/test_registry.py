"""Cameras as operators see them, on a real database with a clock that the test moves."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from fleetd.access import AccessControl
from fleetd.domain.presence import Presence
from fleetd.domain.records import Role
from fleetd.errors import AccessError, ConflictError, InvalidError, NotFoundError, UnknownCameraError
from fleetd.registry import Registry
from fleetd.store import migrate, tables
from fleetd.store.engine import SqlStore
from fleetd.store.landing import Arrival, Landing

BOOT = "0123456789abcdef"


class Clock:
    def __init__(self) -> None:
        self.now = 10_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database_url: str) -> Iterator[SqlStore]:
    store = SqlStore(database_url)
    migrate.upgrade(store)
    yield store
    store.close()


@pytest.fixture
def registry(store: SqlStore, clock: Clock) -> Registry:
    return Registry(store, clock)


def heard(
    store: SqlStore, clock: Clock, seq: int = 1, *, channel: str = "status", rest: str = "", **body: object
) -> None:
    content = {"boot": BOOT, "seq": seq, "up_ms": int(clock.now * 1000), "online": True, **body}
    Landing(store).write([Arrival("cam-1", channel, rest, content, clock.now, retained=False)])


def test_a_camera_is_enrolled_with_a_credential_that_is_not_stored(
    store: SqlStore, registry: Registry
) -> None:
    camera, secret = registry.enrol("cam-1", actor="alice", tags=["line-3"], note="above the belt")
    assert camera.tags == {"line-3"}
    assert len(secret) >= 27, "160 random bits"
    with store.connect(write=False) as connection:
        dump = "\n".join(
            str(row)
            for table in tables.metadata.sorted_tables
            for row in connection.execute(sa.select(table))
        )
    assert "above the belt" in dump
    assert secret not in dump


def test_no_two_credentials_are_alike(registry: Registry) -> None:
    secrets = {registry.enrol(f"cam-{n}", actor="alice")[1] for n in range(50)}
    secrets.add(registry.rotate_secret("cam-1", actor="alice"))
    assert len(secrets) == 51


def test_a_name_is_enrolled_once(registry: Registry) -> None:
    registry.enrol("cam-1", actor="alice")
    with pytest.raises(ConflictError, match=r"enrolled already.*rotate-secret"):
        registry.enrol("cam-1", actor="bob")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "+",
        "#",
        "a/b",
        "cam/#",
        "../x",
        "CAM",
        "_x",
        "-x",
        "a" * 64,
        "a\0b",
        "%u",
        "$SYS",
        "caм",
        "a b",
        "a\n",
    ],
)
def test_a_name_that_would_mean_something_in_a_topic_or_path_is_refused(
    registry: Registry, name: str
) -> None:
    with pytest.raises(InvalidError, match="cannot be a camera's name"):
        registry.enrol(name, actor="alice")
    assert registry.cameras() == []


def test_presence_follows_the_clock(store: SqlStore, registry: Registry, clock: Clock) -> None:
    registry.enrol("cam-1", actor="alice")
    assert registry.camera("cam-1").presence is Presence.NEW
    heard(store, clock)
    assert registry.camera("cam-1").presence is Presence.ONLINE
    clock.now += 100
    view = registry.camera("cam-1")
    assert (view.presence, view.silent_s) == (Presence.LATE, 100)
    clock.now += 100
    assert registry.camera("cam-1").presence is Presence.OFFLINE
    heard(store, clock, 2)
    assert registry.camera("cam-1").presence is Presence.ONLINE


def test_cameras_are_chosen_by_a_target_query(store: SqlStore, registry: Registry, clock: Clock) -> None:
    for n, tag in ((1, "roof"), (2, "roof"), (3, "barn")):
        registry.enrol(f"cam-{n}", actor="alice", tags=[tag])
    heard(store, clock, board="OMVRT1060 32768 SDRAM")
    assert [view.camera.name for view in registry.cameras("tag=roof")] == ["cam-1", "cam-2"]
    assert [view.camera.name for view in registry.cameras("presence=online")] == ["cam-1"]
    assert [view.camera.name for view in registry.cameras("board=OMVRT1060")] == ["cam-1"]


def test_tags_are_added_and_removed(registry: Registry) -> None:
    registry.enrol("cam-1", actor="alice", tags=["a", "b"])
    assert registry.tag("cam-1", add=["c"], remove=["a", "nothing"], actor="bob").camera.tags == {"b", "c"}
    with pytest.raises(InvalidError, match="cannot be a tag"):
        registry.tag("cam-1", add=["no spaces"], actor="bob")


def test_a_removed_camera_takes_its_data_along(store: SqlStore, registry: Registry, clock: Clock) -> None:
    registry.enrol("cam-1", actor="alice")
    heard(store, clock)
    heard(store, clock, 2, channel="led", color="blue", pattern="solid")
    registry.remove("cam-1", actor="alice")
    with pytest.raises(UnknownCameraError, match="No camera named cam-1"):
        registry.camera("cam-1")
    with store.connect(write=False) as connection:
        assert not connection.execute(sa.select(tables.sightings)).all()
        assert not connection.execute(sa.select(tables.boots)).all()


def test_what_an_operator_sees_of_an_led_is_a_sighting_like_the_cameras_own(
    store: SqlStore, registry: Registry, clock: Clock
) -> None:
    registry.enrol("cam-1", actor="alice")
    heard(store, clock, 1, channel="led", color="blue", pattern="solid", reason="running")
    clock.now += 60
    registry.report_led("cam-1", color="white", pattern="cycle", source="operator", reason=None, actor="bob")
    assert [(s.color, s.source) for s in registry.sightings("cam-1")] == [
        ("white", "operator"),
        ("blue", "agent"),
    ]
    assert registry.camera("cam-1").camera.led_color == "white"
    with pytest.raises(InvalidError, match="no LED colour"):
        registry.report_led(
            "cam-1", color="pink", pattern="solid", source="operator", reason=None, actor="bob"
        )


def test_a_command_is_queued_and_answered_or_expires(
    store: SqlStore, registry: Registry, clock: Clock
) -> None:
    registry.enrol("cam-1", actor="alice")
    first = registry.send_command("cam-1", "identify", actor="bob", ttl_s=60)
    second = registry.send_command("cam-1", "reboot", actor="bob", ttl_s=60)
    assert registry.command(first)["state"] == "queued"
    heard(store, clock, 1, channel="reply", rest="identify", id=first, ok=True)
    assert registry.command(first)["state"] == "done"
    clock.now += 61
    assert registry.command(second)["state"] == "expired"
    with store.reading() as work:
        assert work.commands.unsent(clock.now) == []
    with pytest.raises(InvalidError, match="no command"):
        registry.send_command("cam-1", "explode", actor="bob")
    with pytest.raises(NotFoundError):
        registry.command("nope")


def test_another_cameras_reply_does_not_answer_a_command(
    store: SqlStore, registry: Registry, clock: Clock
) -> None:
    """Regression (s): reports count only from the camera's own lane."""
    registry.enrol("cam-1", actor="alice")
    registry.enrol("cam-2", actor="alice")
    command = registry.send_command("cam-2", "identify", actor="bob")
    heard(store, clock, 1, channel="reply", rest="identify", id=command, ok=True)
    assert registry.command(command)["state"] == "queued"


def test_the_first_start_makes_one_admin_token_and_later_starts_none(store: SqlStore, clock: Clock) -> None:
    access = AccessControl(store, clock)
    kept: list[str] = []
    assert access.make_first_admin(kept.append)
    assert not access.make_first_admin(kept.append)
    (secret,) = kept
    assert access.authenticate(secret).role is Role.ADMIN
    with pytest.raises(AccessError):
        access.authenticate(secret + "x")


def test_a_first_admin_token_that_cannot_be_kept_is_not_in_force_and_another_is_made(
    store: SqlStore, clock: Clock
) -> None:
    """Being killed between token and file would leave a fleetd that nobody can administer."""
    access = AccessControl(store, clock)

    def fails(_secret: str) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        access.make_first_admin(fails)
    assert access.tokens() == []
    assert access.make_first_admin(lambda _secret: None)


@pytest.mark.parametrize("args", [{"x": "a" * 4000}, {"x": float("nan")}])
def test_a_command_that_no_camera_could_read_is_refused(registry: Registry, args: dict[str, Any]) -> None:
    registry.enrol("cam-1", actor="alice")
    with pytest.raises(InvalidError, match="at most"):
        registry.send_command("cam-1", "identify", args=args, actor="bob")


def test_a_revoked_token_opens_nothing(store: SqlStore, clock: Clock) -> None:
    access = AccessControl(store, clock)
    secret = access.create_token("bob", Role.VIEWER, actor="alice")
    access.revoke_token("bob", actor="alice")
    with pytest.raises(AccessError):
        access.authenticate(secret)
    with pytest.raises(ConflictError):
        access.create_token("bob", Role.VIEWER, actor="alice")
    with pytest.raises(NotFoundError):
        access.revoke_token("bob", actor="alice")


def test_every_change_is_in_the_audit_trail_and_an_edit_is_noticed(
    store: SqlStore, registry: Registry, clock: Clock
) -> None:
    registry.enrol("cam-1", actor="alice")
    registry.tag("cam-1", add=["x"], actor="bob")
    entries = AccessControl(store, clock).audit()
    assert [(entry["actor"], entry["action"]) for entry in entries] == [
        ("bob", "camera.tag"),
        ("alice", "camera.enrol"),
    ]
    with store.transaction() as work:
        assert work.access.first_broken_entry() is None
    with store.connect(write=True) as connection:
        connection.execute(sa.update(tables.audit).where(tables.audit.c.id == 1).values(actor="mallory"))
    with store.transaction() as work:
        assert work.access.first_broken_entry() == 1


def test_audit_entries_survive_sixteen_concurrent_writers(store: SqlStore, registry: Registry) -> None:
    """Regression (t): no entry may be lost or fork the chain, however many write at once."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: registry.enrol(f"cam-{n}", actor=f"writer-{n % 16}"), range(160)))
    with store.transaction() as work:
        assert len(work.access.entries(1000)) == 160
        assert work.access.first_broken_entry() is None
