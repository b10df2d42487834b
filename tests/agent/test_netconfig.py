"""Another WiFi comes from afar: it stays when it leads back to the broker, and goes by itself when it does not."""

from typing import Any

import pytest

from camera_agent import netconfig
from camera_agent.agent import Agent
from tests.agent.core_kit import Bench, CoreHal, settings_of

OLD = {"ssid": "hall 3", "key": "its password"}
NEW = {"ssid": "hall 4", "key": "another password"}


class Camera(Bench):
    """Starts as boards do: settings first, then the network that is to be tried."""

    def __init__(self, hal: CoreHal | None = None) -> None:
        super().__init__(hal, wifi=OLD)
        settings = settings_of(wifi=OLD)
        self.state = netconfig.overlay(self.hal, settings)
        self.agent = Agent(self.hal, settings, {"network": self.state})

    def again(self, works: bool = True) -> "Camera":
        self.agent.stop()
        self.hal.now = 0
        camera = Camera(self.hal)
        self.hal.network = works
        camera.start()
        return camera

    @property
    def wifi(self) -> Any:
        return self.agent.settings["wifi"]

    def events(self) -> list[str]:
        return [event["kind"] for event in self.sent("event")]


def pushed(wifi: Any = NEW, **more: Any) -> Camera:
    camera = Camera()
    camera.start()
    camera.run(3).desire(None, 2, config={"wifi": wifi, **more})
    return camera.run(8)


def test_a_network_that_leads_back_stays() -> None:
    camera = pushed(country="DE")
    assert camera.agent.is_over
    camera = camera.again().run(5)
    assert (camera.state, camera.wifi) == ("trial", NEW)
    assert "network-confirmed" in camera.events()
    camera = camera.again().run(5)
    assert (camera.state, camera.wifi, camera.agent.settings["country"]) == (None, NEW, "DE")


def test_a_network_that_does_not_is_taken_back_after_five_minutes_and_not_tried_again() -> None:
    camera = pushed().again(works=False).run(5)
    assert camera.wifi == NEW
    assert not camera.agent.is_over
    camera.hal.now += 300_000
    camera.run(2)
    assert camera.agent.is_over
    camera = camera.again()
    assert (camera.state, camera.wifi) == ("reverted", OLD)
    camera.run(3).desire(None, 3, config={"wifi": NEW})
    camera.run(10)
    assert not camera.agent.is_over
    assert "config-refused" in camera.events()


def test_a_camera_that_crashes_with_it_goes_back_by_its_number_of_starts() -> None:
    camera = pushed()
    for _ in range(2):
        camera = camera.again(works=False).run(1)
        assert camera.wifi == NEW
    camera = camera.again().run(5)
    assert (camera.state, camera.wifi) == ("reverted", OLD)
    assert "network-reverted" in camera.events()


def test_the_same_network_again_changes_nothing() -> None:
    camera = pushed(OLD)
    assert not camera.agent.is_over
    assert camera.hal.notes == {}
    assert "config-refused" not in camera.events()


@pytest.mark.parametrize("wrong", [{"ssid": ""}, {"ssid": "x" * 33}, "hall 4", 7, {"key": "no name"}])
def test_a_wrong_value_is_refused_by_name(wrong: Any) -> None:
    camera = pushed(wrong)
    assert not camera.agent.is_over
    assert [event["text"] for event in camera.sent("event") if event["kind"] == "config-refused"] == ["wifi"]


def test_the_brokers_address_is_not_changed_like_this() -> None:
    camera = pushed(OLD, host="elsewhere", port=1)
    assert [event["text"] for event in camera.sent("event") if event["kind"] == "config-refused"] == [
        "host, port"
    ]


def test_its_password_is_in_no_event() -> None:
    camera = pushed().again().run(5)
    assert "password" not in str(camera.messages)


@pytest.mark.parametrize("torn", ["", "0000", "deadbeef {}", "not a note at all", '{"values": {"wifi": 1}}'])
def test_a_torn_note_counts_as_none(torn: str) -> None:
    hal = CoreHal()
    hal.notes = {"net_ok": torn, "net_try": torn}
    settings = settings_of(wifi=OLD)
    assert netconfig.overlay(hal, settings) is None
    assert settings["wifi"] == OLD


def test_a_cut_between_the_two_notes_of_a_confirmation_only_repeats_the_trial() -> None:
    camera = pushed().again()
    tried = camera.hal.notes["net_try"]
    camera.run(5)
    camera.hal.notes["net_try"] = tried
    camera = camera.again().run(5)
    assert camera.wifi == NEW
    assert "network-confirmed" in camera.events()


def test_where_nothing_can_be_kept_it_is_refused() -> None:
    class Forgetful(CoreHal):
        def keep(self, text: str, name: str = "note") -> None:
            pass

    camera = Camera(Forgetful())
    camera.start()
    camera.run(3).desire(None, 2, config={"wifi": NEW})
    assert "config-refused" in camera.run(8).events()
    assert not camera.agent.is_over
