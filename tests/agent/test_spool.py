"""The spool on the SD card: whatever is written down comes back after any power cut, under its own boot and number."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_agent.errors import StorageError
from camera_agent.regions import FileRegion
from camera_agent.spool import BLOCK, Spool
from camera_agent.spooling import SpooledOutbox
from camera_agent.volume import allocate
from tests.agent.core_kit import Bench, CoreHal
from tests.agent.fake_stream import FakeHal
from tests.agent.micropython import DEVICE_FAKES, Arch, run_device

BOOT = "0123456789abcdef"


class PowerCut(BaseException):  # no error, and nothing may catch it
    """The supply went away."""


class Card:
    """An SD card's file in memory: whole blocks; a cut leaves a write undone, torn or done, and refuses all others."""

    def __init__(self, blocks: int) -> None:
        self.size = blocks * BLOCK
        self.data = bytearray(self.size)
        self.writes = 0
        self.cut_at: int | None = None
        self.torn = 0
        self.broken = False

    def readinto(self, offset: int, view: memoryview) -> int:
        if self.broken:
            raise StorageError("storage-error", "the card is gone")
        count: int = max(0, min(len(view), self.size - offset))
        view[:count] = self.data[offset : offset + count]
        return count

    def write(self, offset: int, buf: bytes) -> None:
        if self.broken:
            raise StorageError("storage-error", "the card is gone")
        assert offset % BLOCK == 0
        assert len(buf) == BLOCK
        self.writes += 1
        if self.cut_at is not None and self.writes >= self.cut_at:
            if self.writes == self.cut_at:
                self.data[offset : offset + self.torn] = bytes(buf)[: self.torn]
            raise PowerCut
        self.data[offset : offset + BLOCK] = buf

    def sync(self) -> None:
        pass


def opened(card: Card) -> Any:
    return Spool(card, lambda: None)


def everything(spool: Any) -> list[Any]:
    """Takes until nothing is left: (boot, seq, channel, payload)."""
    found: list[Any] = []
    while not spool.is_empty:
        taken = spool.take()
        if taken:
            found.append(tuple(taken[1:]))
    return found


def test_messages_come_back_in_order_after_a_restart() -> None:
    card = Card(64)
    spool = opened(card)
    sizes = (0, 1, 400, 473, 474, 2000, 511)
    for seq, size in enumerate(sizes, 1):
        assert spool.put(BOOT, seq, "result", bytes([seq]) * size) is not None
    wanted = [(BOOT, seq, "result", bytes([seq]) * size) for seq, size in enumerate(sizes, 1)]
    assert everything(opened(card)) == wanted
    assert everything(spool) == wanted


def test_what_has_its_receipt_does_not_come_back() -> None:
    card = Card(64)
    spool = opened(card)
    places = [spool.put(BOOT, seq, "event", b"x" * 700) for seq in range(1, 6)]
    spool.done(places[1])
    spool.done(places[1])
    spool.done(places[4])
    assert [found[1] for found in everything(opened(card))] == [1, 3, 4]


def test_a_full_spool_gives_up_the_oldest_and_counts_it_by_class() -> None:
    card = Card(8)
    spool = opened(card)
    for seq in range(1, 11):
        spool.put(BOOT, seq, "reply/snapshot" if seq == 1 else "result", b"x")
    assert spool.lost == {"reply": 1, "result": 1}
    assert [found[1] for found in everything(opened(card))] == list(range(3, 11))


def test_a_message_that_takes_more_than_half_of_it_is_not_for_the_spool() -> None:
    spool = opened(Card(8))
    assert spool.put(BOOT, 1, "event", bytes(5 * BLOCK)) is None
    assert everything(spool) == []


def test_a_card_full_of_something_else_is_an_empty_spool() -> None:
    card = Card(32)
    card.data[:] = bytes(n * 7 % 256 for n in range(card.size))
    assert everything(opened(card)) == []


def test_a_damaged_message_is_left_out_and_the_others_are_not() -> None:
    card = Card(32)
    spool = opened(card)
    for seq in (1, 2, 3):
        spool.put(BOOT, seq, "event", b"x" * 600)
    card.data[3 * BLOCK + 10] ^= 1  # inside the second one's payload
    assert [found[1] for found in everything(opened(card))] == [1, 3]


PUTS = st.lists(st.tuples(st.integers(0, 2200), st.booleans()), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(PUTS, st.integers(1, 120), st.sampled_from([0, 1, 16, 32, 100, 511, 512]), st.integers(12, 40))
def test_no_power_cut_costs_a_message_that_was_written_down(
    puts: list[tuple[int, bool]], cut_at: int, torn: int, blocks: int
) -> None:
    """`puts`: size of a message, and whether the oldest one that waits gets its receipt first. Two boots, two cuts."""
    card = Card(blocks)
    written: dict[int, bytes] = {}
    given_up: set[int] = set()
    done: set[int] = set()
    maybe: set[int] = set()  # a cut came in the middle
    seq = 0
    for _ in range(2):
        spool = opened(card)
        card.cut_at, card.torn = card.writes + cut_at, torn
        held: list[tuple[int, int]] = []
        try:
            for size, receipt in puts:
                if receipt and held:
                    at, number = held.pop(0)
                    maybe.add(number)
                    spool.done(at)
                    maybe.discard(number)
                    done.add(number)
                seq += 1
                payload = seq.to_bytes(2) * (size // 2)
                maybe.add(seq)
                at = spool.put(BOOT, seq, "result", payload)
                maybe.discard(seq)
                if at is not None:
                    written[seq] = payload
                    held.append((at, seq))
        except PowerCut:
            pass
        lost = sum(spool.lost.values())
        card.cut_at = None
        found = everything(opened(card))
        numbers = [number for _, number, _, _ in found]
        assert all(payload == written.get(number, payload) for _, number, _, payload in found)
        missing = set(written) - set(numbers) - done - maybe - given_up
        # The last put had counted what makes room for it; when it was cut, that may be there or not.
        assert len(missing) <= lost, (missing, lost)
        given_up |= missing


# --- the outbox in front of it ----------------------------------------------------------------------------


class Box:
    """An outbox with a spool, and a way to lose everything but the card."""

    def __init__(self, card: Card | None = None, **bounds: int) -> None:
        self.card = card or Card(400)
        self.hal: Any = FakeHal(seed=self.card.writes + 1)
        self.hal.say = lambda _text: None  # type: ignore[attr-defined]
        self.bounds = {"most_messages": 8, "most_bytes": 4096, **bounds}
        self.outbox: Any = SpooledOutbox(self.hal, spool=opened(self.card), **self.bounds)

    def put(self, count: int, channel: str = "result") -> None:
        for _ in range(count):
            self.outbox.put(channel, {"results": []})

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.hal.now += 1000
            self.outbox.tidy(self.hal.now)

    def deliver(self) -> list[tuple[str, int]]:
        """Sends and receipts until nothing is left; (boot, seq) as they went out."""
        out: list[tuple[str, int]] = []
        for _ in range(3000):
            message = self.outbox.next(self.hal.now, True)
            if message is None:
                self.outbox.tidy(self.hal.now)
                if not len(self.outbox) and self.outbox._spool.is_empty:
                    return out
                continue
            self.outbox.sent(message, 1)
            body = json.loads(message.payload)
            assert (body["boot"], body["seq"]) == (message.boot, message.seq)
            out.append((message.boot, message.seq))
            self.outbox.ack(message.boot, [[message.seq, message.seq]])
        raise AssertionError("it never ends")


def test_a_camera_that_is_connected_writes_nothing() -> None:
    box = Box()
    for _ in range(20):
        box.put(2)
        box.deliver()
        box.wait(5)
    assert box.card.writes == 0


def test_what_overflows_goes_to_the_card_and_comes_back_under_its_number() -> None:
    box = Box()
    box.put(50)
    assert box.outbox.dropped == {}
    assert box.outbox.low == 1, "nothing may be declared lost"
    assert sorted(seq for _, seq in box.deliver()) == list(range(1, 51))
    assert box.outbox.low == 51


def test_messages_of_an_earlier_boot_keep_its_id_and_their_number() -> None:
    box = Box()
    box.put(30)
    box.wait(15)
    again = Box(box.card)
    assert again.outbox.boot != box.outbox.boot
    again.put(3)
    out = again.deliver()
    assert sorted(seq for boot, seq in out if boot == box.outbox.boot) == list(range(1, 31))
    assert sorted(seq for boot, seq in out if boot == again.outbox.boot) == [1, 2, 3]
    assert Box(box.card).deliver() == [], "receipted messages do not come back"


def test_only_the_last_seconds_are_lost_by_a_power_cut_and_nothing_by_a_restart_on_purpose() -> None:
    box = Box()
    box.put(3)
    box.wait(12)
    box.put(2)
    assert len(Box(box.card).deliver()) == 3
    box = Box()
    box.put(5)
    box.outbox.flush()
    assert len(Box(box.card).deliver()) == 5


def test_telemetry_and_statuses_are_never_written() -> None:
    box = Box()
    box.put(30, "telemetry")
    box.put(1, "status")
    box.wait(60)
    box.outbox.flush()
    assert box.card.writes == 0
    assert box.outbox.dropped["telemetry"] == 23


def test_what_the_card_cannot_hold_is_counted() -> None:
    box = Box(Card(16))
    box.put(60)
    box.wait(1)
    delivered = len(box.deliver())
    box.outbox.tidy(box.hal.now)
    assert delivered + sum(box.outbox.dropped.values()) == 60


def test_a_card_that_fails_is_said_and_the_outbox_goes_on_in_memory() -> None:
    box = Box()
    box.put(20)
    box.card.broken = True
    box.put(20)
    box.wait(30)
    assert box.outbox.problem == "spool-failed"
    assert len(box.outbox) == 8
    assert box.outbox.low > 1, "what is out of reach is given up"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "wait", "deliver", "reboot"]), st.integers(1, 20)), max_size=25
    )
)
def test_nothing_is_lost_silently_over_any_number_of_restarts(steps: list[tuple[str, int]]) -> None:
    box = Box(Card(2000))
    put: set[tuple[str, int]] = set()
    got: set[tuple[str, int]] = set()
    for what, amount in steps:
        if what == "put":
            before = box.outbox._seq
            box.put(amount)
            put |= {(box.outbox.boot, seq) for seq in range(before + 1, box.outbox._seq + 1)}
        elif what == "wait":
            box.wait(amount)
        elif what == "deliver":
            got |= set(box.deliver())
        else:
            box.outbox.flush()
            box = Box(box.card)
        assert len(box.outbox) <= 8
    got |= set(box.deliver())
    assert got == put


def test_a_whole_camera_keeps_what_it_saw_over_an_hour_without_network_and_a_power_cut(
    tmp_path: Path,
) -> None:
    class CardHal(CoreHal):
        card = Card(4000)

        def open_spool(self, size: int) -> Any:
            return self.card

    bench = Bench(CardHal(), spool_bytes=65536, outbox_messages=8).start().run(5)
    first = bench.agent.outbox.boot
    bench.hal.network = False
    for n in range(60):
        bench.agent.outbox.put("event", {"kind": "note", "text": str(n)})
        bench.run(1)
    bench.run(12)
    bench.hal.network = True
    again = bench.reboot()
    again.agent.outbox = SpooledOutbox(again.hal, 8, 4096, opened(CardHal.card))
    again.agent.link._outbox = again.agent.outbox
    again.run(60)
    notes = {event["text"]: event["boot"] for event in again.sent("event") if event["kind"] == "note"}
    assert notes == {str(n): first for n in range(60)}


@pytest.mark.parametrize(
    ("open_spool", "problem"), [(lambda _: None, "spool-needs-card"), (None, "spool-failed")]
)
def test_a_spool_that_cannot_be_is_a_problem_and_no_end(
    open_spool: Callable[[int], None] | None, problem: str
) -> None:
    def fails(_size: int) -> None:
        raise StorageError("storage-error", "no")

    hal = CoreHal()
    hal.open_spool = open_spool or fails  # type: ignore[attr-defined]
    assert problem in Bench(hal, spool_bytes=65536).start().run(5).status()["problems"]


@pytest.mark.parametrize("arch", ["i386", "amd64"])
def test_on_micropython_a_file_keeps_messages_over_restarts(arch: Arch, tmp_path: Path) -> None:
    script = DEVICE_FAKES / "check_spool.py"
    path = tmp_path / "spool.bin"
    for boot in range(3):
        run = run_device(arch, script, str(path), str(boot), heapsize="128k")
        assert run.stdout.split() == ["ok", str(boot * 20)]


def test_the_file_of_a_spool_takes_blocks_of_a_sector(tmp_path: Path) -> None:
    region: FileRegion = allocate(str(tmp_path / "spool.bin"), 16_384, None)
    region.unit = 512
    spool: Any = Spool(region, lambda: None)
    spool.put(BOOT, 1, "event", b"hello")
    region.close()
    region = FileRegion(str(tmp_path / "spool.bin"))
    again: Any = Spool(region, lambda: None)
    assert everything(again) == [(BOOT, 1, "event", b"hello")]
    region.close()
