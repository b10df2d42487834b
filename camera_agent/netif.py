"""The camera's network interface: WiFi when the settings name one, else Ethernet. Never blocks for long, never raises.

    net = Interface(settings, ticks_ms)
    net.step() -> bool      True while there is an IP link; joins and joins again by itself
    net.info() -> dict      for `up/status`: kind, ip, rssi
    net.error               why the last try failed, or None

RAM BUDGET: one firmware object.
"""

from camera_agent.heap import const

_LOOK_MS = const(500)  # between two questions to the driver
_JOIN_MS = const(20_000)  # how long a join may take before it is started again
_HIDDEN = const("0.0.0.0")  # what drivers call no address  # noqa: S104


def _firmware_network():
    try:
        import network
    except ImportError:
        return None
    return network


class Interface:
    """WLAN or LAN, whatever the settings and the firmware have. See the module's docstring."""

    def __init__(self, settings, ticks_ms):
        self._ticks_ms = ticks_ms
        self._wifi = settings["wifi"]
        self._country = settings["country"]
        self._name = settings["camera"]
        self._network = _firmware_network()
        self._nic = None
        self._is_up = False
        self._look_at = 0
        self._join_at = 0
        self.kind = "wifi" if self._wifi else "ethernet"
        self.error = None

    def step(self):
        """Whether there is a link; what has to be done for one is done meanwhile."""
        now = self._ticks_ms()
        if now < self._look_at:
            return self._is_up
        self._look_at = now + _LOOK_MS
        try:
            self._is_up = self._look(now)
        except Exception as error:  # drivers raise OSError, RuntimeError, ValueError and more
            self.error = "%s: %s" % (type(error).__name__, error)
            self._is_up = False
            self._nic = None  # a new object is how OpenMV's own code gets a stuck radio going again
            self._look_at = now + _JOIN_MS
        return self._is_up

    def _look(self, now):
        if self._nic is None:
            self._nic = self._open()
            self._join_at = now
        if self._nic.isconnected() and self._address() != _HIDDEN:
            self._join_at = now + _JOIN_MS
            self.error = None
            return True
        if now >= self._join_at:
            self._join_at = now + _JOIN_MS
            self._join()
        return False

    def _open(self):
        network = self._network
        if network is None:
            raise OSError("this firmware has no network module")
        for setting, value in (("country", self._country), ("hostname", self._name[:32])):
            if value and hasattr(network, setting):
                getattr(network, setting)(value)
        if self._wifi:
            nic = network.WLAN(getattr(network, "STA_IF", 0))
        elif hasattr(network, "LAN"):
            nic = network.LAN()
        else:
            raise OSError("no wifi in config.json, and this board has no Ethernet")
        nic.active(True)
        return nic

    def _join(self):
        if not self._wifi:
            return  # the cable and DHCP do it
        if self.error is None:
            self.error = "not joined yet"
        elif hasattr(self._nic, "disconnect"):
            self._nic.disconnect()
        key = self._wifi.get("key", "")
        if key:
            self._nic.connect(self._wifi["ssid"], key)
        else:
            self._nic.connect(self._wifi["ssid"])

    def _address(self):
        return self._nic.ifconfig()[0]

    def info(self):
        """What is known of the link."""
        known = {"kind": self.kind}
        if self._is_up:
            try:
                known["ip"] = self._address()
                strength = self.rssi()
                if strength is not None:
                    known["rssi"] = strength
            except Exception as error:
                self.error = str(error)
        return known

    def rssi(self):
        """Signal strength in dBm, or None."""
        if not self._is_up or not self._wifi:
            return None
        try:
            if hasattr(self._nic, "status"):
                return self._nic.status("rssi")
            return self._nic.rssi()
        except Exception:
            return None  # a driver that cannot say
