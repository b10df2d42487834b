"""The agent's core on a camera in memory: real link, outbox, updater and slots; clock, sensor and broker are fakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camera_agent import agent as agent_module
from camera_agent import ready
from camera_agent import start as start_module
from camera_agent.trouble import Trouble, short_hash, traceback_text
from fleetd import __version__
from fleetd.protocol import messages
from tests.agent.core_kit import SIGNER, Bench, CoreHal, model_release

BAD_MODELS: list[tuple[dict[str, Any], str]] = [
    ({"labels": ("a", "b")}, "labels-mismatch"),
    ({"load": "model-load-failed"}, "model-load-failed"),
    ({"raises": "Invoke failed"}, "trial-crashed"),
    ({"ms": 6000}, "inference-too-slow"),
]


def validate(bench: Bench) -> None:
    for channel, message in bench.messages:
        messages.UP[channel.split("/")[0]].validate_json(json.dumps(message))


# --- a normal life ----------------------------------------------------------------------------------------


def test_a_camera_says_that_it_started_what_it_is_and_what_its_led_shows() -> None:
    bench = Bench().start().run(3)
    (boot,) = bench.sent("event")
    assert boot["kind"] == "boot"
    assert boot["seq"] == 1
    assert boot["text"] == f"power-on: agent {__version__} on firmware 4.8.1"
    status = bench.status()
    assert status["online"] is True
    assert (status["board"], status["uid"], status["reset"]) == (
        "OMVRT1060 32768 SDRAM",
        "0123456789abcdef",
        "power-on",
    )
    assert status["release"] is None
    assert status["problems"] == ["no-model"]
    assert status["storage"] == {
        "backend": "flash",
        "free": 1_000_000,
        "total": 4_000_000,
        "slot_bytes": 65536,
    }
    assert status["network"] == {
        "kind": "wifi",
        "ip": "10.0.0.7",
        "rssi": -61,
        "reconnects": 0,
        "failed": 0,
        "kicked": 0,
        "dead": 0,
        "resets": 0,
    }
    assert "watchdog" in status["capabilities"]
    assert bench.sent("led")[-1]["reason"] == "no-model"
    validate(bench)


def test_a_camera_takes_a_model_over_the_air_confirms_it_and_classifies() -> None:
    release = model_release("m-1")
    bench = Bench(interval_ms=200).start().run(2).install(release).run(10)
    assert [state for state, _ in bench.updates()] == ["transferring", "verifying", "trial", "confirmed"]
    running = bench.status()["release"]
    assert (running["id"], running["digest"], running["slot"]) == ("m-1", release.digest, "a")
    assert bench.status()["trial"] is None
    assert bench.status()["generation"] == 1
    assert bench.status()["problems"] == []
    assert {result["label"] for result in bench.results()} == {"blue ball"}
    assert {message["release"] for message in bench.sent("result")} == {"m-1"}
    assert bench.led() == ("blue", "solid")
    assert bench.agent.trouble.count == 0
    validate(bench)


def test_after_a_restart_it_goes_on_with_its_model_without_being_told() -> None:
    bench = Bench().start().install(model_release("m-1")).reboot().run(10)
    assert bench.status()["release"]["id"] == "m-1"
    assert bench.status()["reset"] == "soft"
    assert bench.results()
    assert bench.updates() == []


def test_telemetry_comes_as_often_as_it_is_set() -> None:
    bench = Bench(telemetry_s=5, interval_ms=250).start().install(model_release("m-1"))
    before = len(bench.sent("telemetry"))
    bench.run(20.5)
    reports = bench.sent("telemetry")[before:]
    assert len(reports) == 4
    last = reports[-1]
    assert 3.5 <= last["fps"] <= 4.1
    assert (last["inference_ms"], last["heap_free"], last["storage_free"]) == (40, 123_456, 1_000_000)
    assert last["temperature_c"] == 41.5
    assert last["uptime_s"] == bench.hal.now // 1000 or last["uptime_s"] < bench.hal.now / 1000
    validate(bench)


def test_the_watchdog_is_fed_in_every_turn() -> None:
    bench = Bench().start()
    fed = bench.hal.fed
    bench.agent.step()
    assert bench.hal.fed > fed


def test_what_changes_is_told_in_a_new_status() -> None:
    bench = Bench().start().run(2)
    before = len(bench.sent("status"))
    bench.run(10)
    assert len(bench.sent("status")) == before
    bench.install(model_release("m-1"))
    assert len(bench.sent("status")) > before


def test_an_agent_that_is_stopped_says_goodbye() -> None:
    bench = Bench(interval_ms=100, batch=64, batch_ms=60_000).start().install(model_release("m-1"))
    bench.agent.stop()
    bench._collect()
    assert bench.status()["online"] is False
    assert bench.broker.stream.sent()[-1][0] == 0xE0  # DISCONNECT
    assert bench.results(), "what was batched goes out first"


# --- the network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refused", "no-network", "silent"])
def test_frames_are_classified_while_the_connection_is_down(how: str) -> None:
    bench = Bench(interval_ms=200).start().install(model_release("m-1")).run(12)
    frames = bench.agent.vision.frames
    if how == "refused":
        bench.broker.accepts = False
        bench.broker.stream.eof = True
    elif how == "no-network":
        bench.hal.network = False
    else:
        bench.broker.answering = False
    bench.run(60)
    assert bench.agent.vision.frames - frames >= 290
    assert bench.led()[0] == "yellow"


def test_what_was_seen_while_the_connection_was_down_arrives_later() -> None:
    bench = Bench(interval_ms=1000, batch=5, batch_ms=5000, outbox_messages=200).start()
    bench.install(model_release("m-1")).run(12)
    bench.hal.network = False
    bench.run(60)
    bench.hal.network = True
    bench.run(30)
    frames = [result["frame"] for result in bench.results()]
    assert sorted(set(frames)) == list(range(1, max(frames) + 1))
    assert bench.agent.outbox.dropped == {}


def test_the_led_tells_network_from_broker() -> None:
    bench = Bench().start().install(model_release("m-1")).run(12)
    bench.hal.network = False
    bench.run(3)
    assert bench.led() == ("yellow", "double-blink")
    bench.hal.network = True
    bench.broker.accepts = False
    bench.run(3)
    assert bench.led() == ("yellow", "blink")
    bench.broker.accepts = True
    bench.run(15)
    assert bench.led() == ("blue", "solid")
    assert [message["reason"] for message in bench.sent("led")][-3:] == ["no-network", "no-broker", "running"]


def test_a_lost_connection_is_told_when_it_is_back_and_not_too_often() -> None:
    bench = Bench().start().run(20)
    for _ in range(4):
        bench.hal.network = False
        bench.run(10)
        bench.hal.network = True
        bench.run(12)
    lost = [event for event in bench.sent("event") if event["kind"] == "connection-lost"]
    assert [event["text"] for event in lost] == [
        "away for 10 s: network-lost",
        "away for 30 s: network-lost x3",
    ]
    assert bench.agent.link.reconnects == 4


def test_what_the_radio_said_meanwhile_is_told_once_it_is_back() -> None:
    bench = Bench()
    bench.hal.network = False
    bench.start().run(2)
    for n in range(1, 4):
        bench.hal.trouble = (n, "wrong-key", None)
        bench.run(20)
    bench.hal.trouble = (4, "no-address", None)
    bench.run(20)
    bench.hal.network = True
    [event] = [event for event in bench.run(5).sent("event") if event["kind"] == "connection-lost"]
    assert event["text"] == "not connected for 82 s after the start: wrong-key x3, no-address"
    assert any("wrong-key" in line for line in bench.hal.said), "who sits at the REPL sees it at once"


def coarsely(bench: Bench, seconds: int) -> None:
    """So many seconds in steps of one: for what takes hours."""
    until = bench.hal.now + 1000 * seconds
    while bench.hal.now < until and not bench.agent.is_over:
        bench.hal.now += 1000
        bench.agent.step()


def test_a_broker_that_nobody_finds_costs_the_radio_a_new_start_now_and_then() -> None:
    bench = Bench().start().run(5)
    bench.broker.accepts = False
    bench.broker.streams[-1].broken = True
    coarsely(bench, 600)
    assert bench.hal.rebuilds >= 1
    assert not bench.agent.is_over, "the broker's absence is no reason to restart"
    bench.broker.accepts = True
    [event] = [event for event in bench.run(90).sent("event") if event["kind"] == "connection-lost"]
    assert "connect-failed" in event["text"]


def test_a_camera_without_a_network_for_an_hour_restarts_and_tells_why_afterwards() -> None:
    bench = Bench().start().install(model_release("m-1")).run(12)
    bench.hal.network = False
    bench.hal.trouble = (1, "no-such-network", None)
    coarsely(bench, 3500)
    assert not bench.agent.is_over
    coarsely(bench, 200)
    assert bench.agent.is_over
    again = bench.reboot()
    coarsely(again, 3700)
    assert not again.agent.is_over, "the second time it waits twice as long"
    bench.hal.network = True
    again.run(10)
    assert again.status()["network"]["resets"] == 1
    [event] = [event for event in again.sent("event") if event["kind"] == "connection-lost"]
    assert "before the restart: " in event["text"]
    assert "no-such-network (it is out of reach or 5 GHz only" in event["text"]
    assert again.reboot().run(5).status()["network"]["resets"] == 0


def test_no_restart_for_the_network_while_a_model_is_on_trial() -> None:
    bench = Bench(offline_reset_s=300).start()
    bench.agent._is_on_trial = lambda: True
    bench.hal.network = False
    coarsely(bench, 900)
    assert not bench.agent.is_over


# --- what fails -------------------------------------------------------------------------------------------


def test_a_camera_without_an_image_sensor_stays_reachable_and_says_so() -> None:
    bench = Bench().start().install(model_release("m-1"))
    bench.hal.camera_error = RuntimeError("Failed to detect the image sensor or image sensor is detached.")
    bench.run(20)
    assert bench.status()["problems"] == ["no-camera"]
    assert bench.status()["online"] is True
    assert bench.led() == ("red", "double-blink")
    event = bench.sent("event")[-1]
    assert event["kind"] == "exception"
    assert "Failed to detect the image sensor" in event["text"]
    bench.down("cmd/identify", {"id": "c-1", "t": 1, "ttl": 60})
    assert bench.run(1).sent("reply/identify")[-1]["ok"] is True
    bench.hal.camera_error = None
    assert bench.run(70).status()["problems"] == []


@pytest.mark.parametrize("part", ["vision", "updater", "link"])
def test_an_exception_in_one_part_becomes_an_event_and_the_others_go_on(part: str) -> None:
    bench = Bench(interval_ms=500).start().install(model_release("m-1"))
    frames = bench.agent.vision.frames
    target = getattr(bench.agent, part)
    works = target.step
    calls = []

    def fails_sometimes() -> bool:
        calls.append(1)
        if len(calls) % 3 == 0:
            raise ZeroDivisionError("nobody thought of that")
        return bool(works())

    target.step = fails_sometimes
    bench.run(30)
    events = [event for event in bench.sent("event") if event["kind"] == "exception"]
    assert len(events) == 1, "the same failure is told once, not at every turn"
    assert events[0]["text"].startswith(f"{part}\nTraceback")
    assert "nobody thought of that" in events[0]["text"]
    assert len(events[0]["hash"]) == 8
    assert bench.agent.vision.frames > frames + 20
    assert not bench.agent.is_over
    validate(bench)


def test_a_part_that_only_raises_ends_the_agent_with_its_last_words_on_the_broker() -> None:
    bench = Bench().start().run(2)

    def fails() -> bool:
        raise RuntimeError("nothing works any more")

    bench.agent.vision.step = fails
    with pytest.raises(RuntimeError) as caught:
        bench.run(30)
    bench.agent.last_words(caught.value)
    bench._collect()
    assert bench.led() == ("red", "blink-fast")
    assert any("nothing works any more" in event["text"] for event in bench.sent("event"))


def test_last_words_do_not_wait_for_ever() -> None:
    bench = Bench().start().run(2)
    bench.receipts = False
    began = bench.hal.now
    bench.agent.last_words(RuntimeError("the end"))
    assert bench.hal.now - began <= 6000


@pytest.mark.parametrize(("behaviour", "reason"), BAD_MODELS)
def test_a_bad_model_on_trial_is_reverted_and_the_old_one_classifies_again(
    behaviour: dict[str, Any], reason: str
) -> None:
    bench = Bench(interval_ms=200).start().install(model_release("m-1", scores=[0.9, 0.05, 0.05]))
    bench.desire(model_release("m-2", 2, **behaviour), 2)
    bench.run(60)
    assert bench.updates()[-1] == ("reverted", reason)
    assert bench.status()["release"]["id"] == "m-1"
    assert bench.status()["trial"] is None
    assert bench.sent("result")[-1]["release"] == "m-1"
    assert bench.results()[-1]["label"] == "background"
    assert bench.led() == ("blue", "solid")
    frames = bench.agent.vision.frames
    assert bench.run(5).agent.vision.frames > frames + 20
    validate(bench)


def test_a_model_that_crashes_the_board_twice_is_reverted_at_the_third_start() -> None:
    class Crashed(BaseException):
        pass

    bench = Bench(interval_ms=200).start().install(model_release("m-1")).run(2)
    bench.desire(model_release("m-2", 2), 2)
    bench.hal.load_error = Crashed()
    with pytest.raises(Crashed):
        bench.run(30)
    with pytest.raises(Crashed):
        bench.reboot("watchdog").run(5)
    bench.hal.load_error = None
    bench = bench.reboot("watchdog").run(10)
    assert bench.updates() == [("reverted", "trial-hung")]
    assert bench.sent("result")[-1]["release"] == "m-1"


def test_a_full_disk_is_named_and_the_old_model_keeps_running() -> None:
    bench = Bench(interval_ms=200).start().install(model_release("m-1"))
    for region in bench.hal.files.medium.regions:
        region.refuses = "not-enough-storage"
    bench.desire(model_release("m-2", 2), 2)
    bench.run(20)
    assert bench.updates()[-1] == ("failed", "not-enough-storage")
    assert bench.sent("result")[-1]["release"] == "m-1"


def test_without_room_for_slots_the_camera_is_reachable_and_says_why() -> None:
    hal = CoreHal()
    hal.files.slot_a = hal.files.slot_b = hal.files.stage = None
    hal.files.pointer_0 = hal.files.pointer_1 = None
    hal.files.problem = "not-enough-storage"
    bench = Bench(hal).start().run(5)
    assert bench.status()["problems"] == ["not-enough-storage", "no-model"]
    bench.desire(model_release("m-1"))
    assert bench.run(10).updates()[-1] == ("rejected", "not-enough-storage")


def test_a_camera_without_keys_says_that_it_takes_no_releases() -> None:
    bench = Bench(keys=[]).start().run(2)
    assert "no-keys" in bench.status()["problems"]
    bench.desire(model_release("m-1"))
    assert bench.run(5).updates()[-1] == ("rejected", "unknown-key")


def test_a_model_that_does_not_fit_into_a_used_heap_gets_a_fresh_one_and_is_confirmed() -> None:
    bench = Bench(interval_ms=200).start().install(model_release("m-1"))
    bench.hal.load_error = MemoryError("allocating 300000 bytes")
    bench.desire(model_release("m-2", 2), 2)
    bench.run(10)
    assert bench.agent.is_over
    assert [event["kind"] for event in bench.sent("event")].count("restart") == 1
    assert bench.updates()[-1] == ("trial", None)
    bench.hal.load_error = None
    bench = bench.reboot()
    bench.run(20)
    assert bench.updates()[-1] == ("confirmed", None)
    assert bench.status()["release"]["id"] == "m-2"


def test_a_model_that_does_not_fit_into_a_fresh_heap_either_is_reverted() -> None:
    bench = Bench(interval_ms=200).start().install(model_release("m-1"))
    bench.desire(model_release("m-2", 2, load="out-of-memory"), 2)
    assert bench.run(10).agent.is_over
    bench = bench.reboot().run(20)
    assert bench.updates()[-1] == ("reverted", "out-of-memory")
    assert not bench.agent.is_over
    assert bench.sent("result")[-1]["release"] == "m-1"


def test_no_lack_of_memory_leads_to_endless_restarts() -> None:
    bench = Bench(interval_ms=200).start().install(model_release("m-1"))
    bench.hal.load_error = MemoryError("allocating 300000 bytes")
    bench.desire(model_release("m-2", 2), 2)
    restarts = 0
    while bench.run(60).agent.is_over:
        restarts += 1
        assert restarts <= 3
        bench = bench.reboot()
    assert restarts == 2  # for the trial, and for the model it went back to
    assert bench.status()["problems"] == ["model-failed:out-of-memory"]
    assert bench.led() == ("magenta", "double-blink")
    bench.hal.load_error = None
    assert bench.run(300).status()["problems"] == []


def test_settings_the_agent_does_not_know_are_shown_as_problems() -> None:
    bench = Bench(zoom=2).start().run(2)
    assert "config-ignored:zoom" in bench.status()["problems"]


def test_a_desired_config_changes_what_it_may_and_refuses_the_rest_once() -> None:
    bench = Bench(interval_ms=1000).start().install(model_release("m-1"))
    for generation in (2, 3):
        bench.desire(None, generation, config={"interval_ms": 100, "host": "elsewhere"})
        bench.run(5)
    assert bench.agent.settings["interval_ms"] == 100
    assert bench.agent.settings["host"] == "broker"
    refused = [event for event in bench.sent("event") if event["kind"] == "config-refused"]
    assert [event["text"] for event in refused] == ["host"]


# --- commands ---------------------------------------------------------------------------------------------


def command(bench: Bench, name: str, **changes: Any) -> dict[str, Any] | None:
    body = {"id": "c-1", "t": 1_700_000_000, "ttl": 60, **changes}
    before = len(bench.sent(f"reply/{name}"))
    bench.down(f"cmd/{name}", body)
    bench.run(0.2)
    replies = bench.sent(f"reply/{name}")[before:]
    assert len(replies) <= 1
    return replies[0] if replies else None


def test_identify_shows_the_camera_for_a_while() -> None:
    bench = Bench().start().install(model_release("m-1"))
    reply = command(bench, "identify", args={"seconds": 10})
    assert reply is not None
    assert (reply["id"], reply["ok"]) == ("c-1", True)
    assert bench.agent.led.state == "identify"
    assert bench.run(11).led() == ("blue", "solid")


@pytest.mark.parametrize("seconds", [-1, 10**9, "x", None])
def test_identify_with_a_foolish_duration_takes_its_own(seconds: object) -> None:
    bench = Bench().start().install(model_release("m-1"))
    command(bench, "identify", args={"seconds": seconds})
    assert bench.run(20).agent.led.state == "identify"
    assert bench.run(15).led() == ("blue", "solid")


def test_a_command_that_comes_twice_is_done_once() -> None:
    bench = Bench().start().install(model_release("m-1"))
    assert command(bench, "identify", args={"seconds": 5}) is not None
    bench.run(6)
    assert command(bench, "identify", args={"seconds": 5}) is None
    assert bench.led() == ("blue", "solid")


def test_an_unknown_command_is_refused_by_name() -> None:
    reply = command(Bench().start().run(2), "dance")
    assert reply is not None
    assert (reply["ok"], reply["reason"]) == (False, "unknown-command")


def test_with_a_clock_a_command_that_comes_too_late_is_refused() -> None:
    bench = Bench().start().run(2)
    bench.hal.clock = 1_700_000_070
    late = command(bench, "identify", id="c-1", t=1_700_000_000, ttl=60)
    assert late is not None
    assert (late["ok"], late["reason"]) == (False, "expired")
    good = command(bench, "identify", id="c-2", t=1_700_000_000, ttl=70)
    assert good is not None
    assert good["ok"] is True


def test_without_a_clock_time_is_known_from_other_commands() -> None:
    bench = Bench().start().run(2)
    first = command(bench, "identify", id="c-1", t=1_700_000_000, ttl=60)
    assert first is not None
    assert first["ok"] is True
    bench.run(120)
    replayed = command(bench, "identify", id="c-0", t=1_700_000_001, ttl=60)
    assert replayed is not None
    assert (replayed["ok"], replayed["reason"]) == (False, "expired")


def test_a_restart_is_answered_first_and_done_once_even_when_the_command_comes_again() -> None:
    bench = Bench().start().install(model_release("m-1"))
    reply = command(bench, "reboot", id="r-1")
    assert reply is not None
    assert reply["ok"] is True
    assert bench.run(6).agent.is_over
    again = bench.reboot().run(2)
    assert command(again, "reboot", id="r-1") is None
    assert not again.run(10).agent.is_over
    assert command(again, "reboot", id="r-2") is not None


def test_a_restart_waits_for_the_receipt_of_its_reply_but_not_for_ever() -> None:
    bench = Bench().start().run(2)
    bench.receipts = False
    assert command(bench, "reboot") is not None
    assert not bench.run(4).agent.is_over
    assert bench.run(2).agent.is_over


def test_a_restart_in_the_middle_of_a_trial_is_refused() -> None:
    bench = Bench().start().install(model_release("m-1"))
    bench.hal.camera_error = RuntimeError("no frame")  # so that the trial takes its time
    bench.desire(model_release("m-2", 2), 2)
    bench.run(3)
    reply = command(bench, "reboot")
    assert reply is not None
    assert (reply["ok"], reply["reason"]) == (False, "busy")


def test_a_restart_is_done_although_storage_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench().start().run(2)

    def fails(_text: str) -> None:
        raise OSError(5)

    monkeypatch.setattr(bench.hal, "keep", fails)
    assert command(bench, "reboot") is not None
    assert bench.run(6).agent.is_over


# --- run() and main() -------------------------------------------------------------------------------------


def put_config(hal: CoreHal, **changes: Any) -> None:
    assert hal.folder is not None
    body = {"camera": "cam-01", "host": "broker", "keys": [SIGNER.public.hex()], **changes}
    (hal.folder / "config.json").write_text(json.dumps(body))


def after(hal: CoreHal, seconds: float, do: Callable[[], None]) -> None:
    """Let something happen while run() sleeps."""
    at = hal.now + seconds * 1000

    def check() -> None:
        if hal.now >= at:
            hal.on_sleep = lambda: None
            do()

    hal.on_sleep = check


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "config-missing"), ("{", "config-unreadable"), ('{"camera": "cam-01"}', "config-invalid")],
)
def test_without_usable_settings_the_led_and_the_repl_say_why_and_nothing_spins(
    text: str | None, reason: str, tmp_path: Path
) -> None:
    hal = CoreHal(folder=tmp_path)
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    after(hal, 60, interrupt)
    assert start_module.run(hal) is False, "a person at the REPL keeps it"
    assert hal.leds[0] == ("red", "blink")
    assert len(hal.said) <= 9
    assert reason in hal.said[0]
    assert hal.configured is None


def test_settings_that_appear_later_are_taken(tmp_path: Path) -> None:
    hal = CoreHal(folder=tmp_path)

    def write() -> None:
        put_config(hal)
        after(hal, 10, interrupt)

    after(hal, 10, write)
    start_module.run(hal)
    assert hal.broker.published


@pytest.mark.parametrize(
    ("debug", "resumes", "restart"),
    [(False, True, False), (False, False, True), (True, True, False)],
    ids=["the watchdog brings it back", "nothing else would", "a developer's"],
)
def test_ctrl_c_leaves_the_repl_to_a_person_but_never_for_good(
    debug: bool, resumes: bool, restart: bool, tmp_path: Path
) -> None:
    hal = CoreHal(folder=tmp_path)
    hal.resumes = resumes
    put_config(hal, debug=debug)
    after(hal, 5, interrupt)
    assert start_module.run(hal) is restart
    assert hal.leds[-1] == ("off", "off")
    assert ("starts again by itself" in hal.said[-1]) is (resumes and not debug)
    assert json.loads(hal.broker.published[-1][1])["online"] is False


def test_a_pause_in_the_middle_of_a_trial_does_not_count_against_it() -> None:
    bench = Bench(interval_ms=200).start().install(model_release("m-1"))
    bench.desire(model_release("m-2", 2), 2)
    for _ in range(5):
        while not bench.status()["trial"]:
            bench.run(0.05)
        bench.agent.pause()
        bench = bench.reboot("watchdog").run(0.5)
        assert bench.status()["trial"] == "m-2"
    assert bench.run(20).updates()[-1] == ("confirmed", None)


def test_a_command_to_restart_ends_run_with_a_goodbye(tmp_path: Path) -> None:
    hal = CoreHal(folder=tmp_path)
    put_config(hal)
    body = json.dumps({"id": "r-1", "t": 1, "ttl": 60}).encode()
    after(hal, 5, lambda: hal.broker.send(b"fleet/v1/cam-01/down/cmd/reboot", body, qos=1))
    assert start_module.run(hal) is True
    assert json.loads(hal.broker.published[-1][1])["online"] is False


class BrokenHal(CoreHal):
    """Everything after the settings fails."""

    resets = 0

    def open_regions(self, slot_bytes: int | None) -> Any:
        raise MemoryError("allocating 4096 bytes")

    def reset(self) -> None:
        self.resets += 1


def test_main_restarts_the_board_after_any_failure_and_never_at_full_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hal = BrokenHal(folder=tmp_path)
    put_config(hal)
    use(monkeypatch, lambda: hal)
    clock = Clock(monkeypatch)
    start_module.start()
    assert hal.resets == 1
    assert clock.slept >= 10
    assert hal.leds[-1] == ("red", "blink-fast")


def test_main_restarts_a_board_whose_hardware_cannot_even_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    def fails() -> CoreHal:
        raise RuntimeError("no such board")

    resets: list[int] = []
    monkeypatch.setitem(sys.modules, "machine", SimpleNamespace(reset=lambda: resets.append(1)))
    use(monkeypatch, fails)
    clock = Clock(monkeypatch)
    start_module.start()
    assert resets == [1]
    assert clock.slept >= 10


def test_main_leaves_the_repl_to_a_person_who_stopped_a_camera_without_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hal = BrokenHal(folder=tmp_path)
    after(hal, 5, interrupt)
    use(monkeypatch, lambda: hal)
    start_module.start()
    assert hal.resets == 0


def test_on_a_small_heap_main_loads_the_parts_one_by_one_and_tidies_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import gc

    from camera_agent import heap

    monkeypatch.setattr(heap, "forget", lambda _name: None)  # other tests hold on to these modules
    collected: list[int] = []
    monkeypatch.setattr(gc, "mem_free", lambda: 100_000, raising=False)
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
    ready.load_parts()  # a part that does not exist any more would raise
    often = len(collected)
    assert often >= len(ready._PARTS)
    monkeypatch.setattr(gc, "mem_free", lambda: 8_000_000)
    ready.load_parts()
    assert len(collected) == often


def use(monkeypatch: pytest.MonkeyPatch, make: Callable[[], CoreHal]) -> None:
    """Let main.py find this hardware."""
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "camera_agent.hal", SimpleNamespace(Hal=make))


class Clock:
    """time.time and time.sleep of main.py, without waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept = 0.0
        monkeypatch.setattr(start_module.time, "time", lambda: 1000 + self.slept)
        monkeypatch.setattr(start_module.time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds


# --- exceptions as events ---------------------------------------------------------------------------------


def raised(message: str) -> Exception:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def test_equal_failures_have_one_hash_whatever_they_say() -> None:
    first, second = traceback_text(raised("no memory for 17")), traceback_text(raised("no memory for 4096"))
    assert short_hash(first) == short_hash(second)
    assert short_hash(first) != short_hash(first.replace("ValueError", "OSError"))
    assert short_hash(first) != short_hash(first.replace("line ", "line 1"))
    assert short_hash(first) == short_hash(first.replace("/test_agent.py", "/elsewhere/test_agent.py"))


def test_repeated_failures_are_counted_and_told_again_after_a_while() -> None:
    hal = CoreHal()
    told: list[dict[str, Any]] = []
    trouble = Trouble(hal, lambda _channel, body: told.append(body))
    for _ in range(50):
        trouble.report("vision", raised("x"))
    assert len(told) == 1
    hal.now += 601_000
    trouble.report("vision", raised("x"))
    assert "49 times" in told[1]["text"]
    assert trouble.count == 51


def test_many_different_failures_need_no_more_memory_than_a_few() -> None:
    hal = CoreHal()
    trouble = Trouble(hal, lambda _channel, _body: 1)
    for number in range(100):
        trouble.report("vision", type(f"Error{number}", (Exception,), {})("x"))
    assert len(trouble._known) <= 8


def test_an_endless_message_is_cut_to_what_travels() -> None:
    told: list[dict[str, Any]] = []
    Trouble(CoreHal(), lambda _channel, body: told.append(body)).report(
        "vision", raised("x" * 10_000 + "\x00end")
    )
    assert len(told[0]["text"]) <= 2000
    assert told[0]["text"].rstrip().endswith("end")
    assert "\x00" not in told[0]["text"]


def test_the_agent_has_the_version_of_the_package() -> None:
    assert __version__ == agent_module.VERSION
