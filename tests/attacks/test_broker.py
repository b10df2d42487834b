"""A broker or a fleetd that was taken over: the whole agent, with everything that can come down its connection.

It may lie about what is desired, and it may say nothing. It can make no camera run what the operator has not signed,
send it to another broker, or take its keys away; and the agent lives on, whatever arrives.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.agent.core_kit import CAMERA, PREFIX, SIGNER, Bench, model_release
from tests.agent.update_kit import Release, Signer

THIEF = Signer(0x7E1F)


@pytest.fixture
def bench() -> Bench:
    """A camera that runs model-1 and works."""
    return Bench().start().install(model_release("model-1", 1))


def works(bench: Bench) -> None:
    """It classifies, is connected, runs its model, and takes an honest release."""
    before = len(bench.results())
    bench.run(8)
    assert len(bench.results()) > before
    assert bench.agent.link.connected
    assert bench.status()["release"]["id"] == "model-1"
    bench.desire(model_release("model-honest", 1000), 900)
    bench.run(15)
    assert bench.updates()[-1] == ("confirmed", None), bench.sent("update")[-2:]


def topic(text: str) -> bytes:
    return f"{PREFIX}/{text}".encode()


MINE = f"{CAMERA}/down"
GOOD_DESIRED = {"generation": 50, "release": None}


def body(**changes: Any) -> bytes:
    return json.dumps({**GOOD_DESIRED, **changes}).encode()


MESSAGES: dict[str, tuple[str, bytes]] = {
    "desired/not-json": (f"{MINE}/desired", b"\x00\x01\x02"),
    "desired/an-array": (f"{MINE}/desired", b"[1]"),
    "desired/half-an-object": (f"{MINE}/desired", b'{"generation": 5'),
    "desired/not-utf-8": (f"{MINE}/desired", b'{"generation": "\xff"}'),
    "desired/4-kb-and-more": (f"{MINE}/desired", body(note="x" * 5000)),
    "desired/64-kb": (f"{MINE}/desired", body(note="x" * 65536)),
    "desired/nested-2000-deep": (f"{MINE}/desired", b'{"config":' * 2000 + b"1" + b"}" * 2000),
    "desired/a-thousand-lists": (
        f"{MINE}/desired",
        b'{"generation":5,"release":null,"x":[' + b"[]," * 1000 + b"1]}",
    ),
    "desired/generation-negative": (f"{MINE}/desired", body(generation=-1)),
    "desired/generation-a-fraction": (f"{MINE}/desired", body(generation=1.5)),
    "desired/generation-of-60-bits": (f"{MINE}/desired", body(generation=2**60)),
    "desired/release-upwards": (f"{MINE}/desired", body(release="../../flash/main.py")),
    "desired/release-with-a-wildcard": (f"{MINE}/desired", body(release="#")),
    "desired/release-of-300-letters": (f"{MINE}/desired", body(release="a" * 300)),
    "desired/digest-no-digest": (f"{MINE}/desired", body(release="model-9", digest="zz")),
    "desired/deadline-not-a-number": (
        f"{MINE}/desired",
        b'{"generation":50,"release":null,"deadline":NaN}',
    ),
    "desired/deadline-infinite": (f"{MINE}/desired", b'{"generation":50,"release":null,"deadline":1e999}'),
    "desired/config-no-object": (f"{MINE}/desired", body(config=[1])),
    "ack/of-another-boot": (f"{MINE}/ack", b'{"boot":"0123456789abcdef","seq":[[1,9999]]}'),
    "ack/backwards": (f"{MINE}/ack", b'{"boot":"0123456789abcdef","seq":[[9,1]]}'),
    "ack/300-ranges": (f"{MINE}/ack", json.dumps({"boot": "0" * 16, "seq": [[1, 1]] * 300}).encode()),
    "ack/garbage": (f"{MINE}/ack", b"ok"),
    "cmd/unknown": (f"{MINE}/cmd/format", b'{"id":"x","t":1,"ttl":60}'),
    "cmd/a-name-with-a-slash": (f"{MINE}/cmd/../reboot", b'{"id":"x","t":1,"ttl":60}'),
    "cmd/without-an-id": (f"{MINE}/cmd/reboot", b'{"t":1,"ttl":60}'),
    "cmd/args-no-object": (f"{MINE}/cmd/identify", b'{"id":"x","t":1,"ttl":60,"args":[1]}'),
    "daemon/garbage": ("_fleetd/status", b"online"),
    "daemon/keys-negative": ("_fleetd/status", b'{"online":true,"instance":"x","keys":-1}'),
    "daemon/keys-far-ahead": ("_fleetd/status", b'{"online":true,"instance":"x","keys":9007199254740991}'),
    "stray/another-camera-s-desired": ("cam-02/down/desired", body(release="model-9")),
    "stray/a-release-nobody-wants": ("_release/model-9", b"FLM1" + b"x" * 2000),
    "stray/a-block-nobody-wants": (f"_blob/{'ab' * 32}/0", b"x" * 4096),
    "stray/a-block-of-a-megabyte": (f"_blob/{'ab' * 32}/0", b"x" * (1 << 20)),
    "stray/a-topic-of-60-kb": ("x" * 60_000, b"x"),
    "stray/another-prefix": ("../../evil", b"x"),
    "stray/an-unknown-channel": (f"{MINE}/firmware", b"x"),
}


@pytest.mark.parametrize("attack", MESSAGES)
def test_a_message_that_is_not_what_it_should_be_is_counted_and_forgotten(bench: Bench, attack: str) -> None:
    name, payload = MESSAGES[attack]
    for qos in (0, 1):
        bench.broker.send(topic(name), payload, qos=qos, retain=False)
    bench.run(2)
    works(bench)


LIES: dict[str, Callable[[], Release]] = {
    "unsigned": lambda: _resigned(model_release("model-9", 9), b"FLM1" + bytes(72)),
    "signed-by-a-stranger": lambda: _by(THIEF, model_release("model-9", 9)),
    "a-changed-model": lambda: _changed(model_release("model-9", 9)),
    "labels-of-another": lambda: _changed(model_release("model-9", 9, labels=("a", "b", "c"))),
}


def _resigned(release: Release, head: bytes) -> Release:
    return Release(release.id, head + release.blob[76:], release.content, release.encodings)


def _by(signer: Signer, release: Release) -> Release:
    return Release(release.id, signer.manifest(release.blob[76:]), release.content, release.encodings)


def _changed(release: Release) -> Release:
    text = release.blob[76:].replace(b'"threshold": 0.6', b'"threshold": 0.1')
    return Release(release.id, release.blob[:76] + text, release.content, release.encodings)


@pytest.mark.parametrize("lie", LIES)
def test_whoever_holds_the_broker_makes_no_camera_run_what_was_not_signed(bench: Bench, lie: str) -> None:
    bench.desire(LIES[lie](), 50)
    bench.run(5)
    state, reason = bench.updates()[-1]
    assert (state, reason) in {("rejected", "signature-invalid"), ("rejected", "unknown-key")}
    works(bench)


CONFIGS: dict[str, dict[str, Any]] = {
    "another-broker": {"host": "evil.example", "port": 1},
    "other-keys": {"keys": [THIEF.public.hex()], "recovery": [], "key_serial": 0},
    "another-name": {"camera": "cam-02", "user": "cam-02"},
    "no-watchdog": {"watchdog_s": 0, "debug": True},
    "smaller-slots": {"slot_bytes": 49152},
    "no-tls": {"tls": None, "password": "x"},
    "an-interval-of-years": {"interval_ms": 10**12},
    "a-batch-without-end": {"batch": 10**9, "batch_ms": -1},
    "wrong-types": {"interval_ms": "fast", "scores": 1, "telemetry_s": None},
}


@pytest.mark.parametrize("attack", CONFIGS)
def test_whoever_holds_fleetd_changes_no_setting_that_is_not_his(bench: Bench, attack: str) -> None:
    before = dict(bench.agent.settings)
    bench.desire(None, 50, config=CONFIGS[attack])
    bench.run(3)
    assert bench.agent.settings == before
    refused = [event["text"] for event in bench.sent("event") if event["kind"] == "config-refused"]
    assert refused == [", ".join(sorted(CONFIGS[attack]))]
    works(bench)


def test_a_retained_command_is_not_carried_out(bench: Bench) -> None:
    bench.broker.send(topic(f"{MINE}/cmd/reboot"), b'{"id":"r-1","t":1,"ttl":60}', qos=1, retain=True)
    bench.run(8)
    assert not bench.agent.is_over
    works(bench)


def test_a_command_that_is_played_again_is_carried_out_once(bench: Bench) -> None:
    for _ in range(10):
        bench.down("cmd/identify", {"id": "c-1", "t": 1, "ttl": 60})
    bench.run(3)
    assert [reply["id"] for reply in bench.sent("reply/identify")] == ["c-1"]
    works(bench)


def test_a_broker_that_hangs_up_after_every_connack_is_not_hammered(bench: Bench) -> None:
    before = len(bench.broker.connects)
    bench.broker.kicks = True
    bench.broker.stream.eof = True
    bench.run(300)
    assert len(bench.broker.connects) - before < 20
    bench.broker.kicks = False
    bench.run(70)
    works(bench)


def test_a_broker_without_fleetd_behind_it_loses_no_newest_result(bench: Bench) -> None:
    bench.receipts = False
    bench.run(120)
    assert len(bench.agent.outbox) <= bench.agent.settings["outbox_messages"]
    bench.receipts = True
    works(bench)


def test_the_camera_says_which_key_would_have_been_needed(bench: Bench) -> None:
    bench.desire(_by(THIEF, model_release("model-9", 9)), 50)
    bench.run(5)
    assert THIEF.key_id.hex() in bench.sent("update")[-1]["detail"]
    assert SIGNER.key_id != THIEF.key_id
