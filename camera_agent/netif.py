"""The camera's network interface: WiFi when the settings name one, else Ethernet. Never raises; only the WINC shield
blocks, while it joins (a few seconds).

    net = Interface(settings, ticks_ms)
    net.step() -> bool      True while there is an IP link; joins and joins again by itself
    net.info() -> dict      for `up/status`: kind, ip, rssi, joins, rebuilds
    net.rebuild()           a new interface object at the next step: the link is there and leads nowhere
    net.error, net.detail   why there is no link, as a word of docs/cameras.md, and what the driver said; or None
    net.failures            how many tries have failed

A try takes 20 s. After three of them the interface is switched off and a new object made, which is how OpenMV's own
code gets a stuck radio going again; what is left then, a restart, is the agent's to decide (camera_agent/flight.py).

RAM BUDGET: one firmware object.
"""

from camera_agent.heap import const, forget, load

_LOOK_MS = const(500)  # between two questions to the driver
_JOIN_MS = const(20_000)  # how long a join may take before it is started again
_TRIES = const(3)  # joins with one interface object
_HIDDEN = const("0.0.0.0")  # what drivers call no address  # noqa: S104
# status() of WiFi (cyw43) and Ethernet (lwIP)
_WIFI_WORDS = {-1: "join-failed", -2: "no-such-network", -3: "wrong-key", 2: "no-address"}
_LAN_WORDS = {0: "no-cable", 1: "no-address", 2: "no-address"}


def _firmware_network():
    try:
        import network
    except ImportError:
        return None
    return network


class Interface:
    """WLAN, WINC or LAN, whatever the settings and the firmware have. See the module's docstring."""

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
        self._tries = 0  # with this object, since there was a link
        self._seen = None  # the driver's word during this try
        self.is_winc = bool(self._wifi) and hasattr(self._network, "WINC")
        self.kind = "wifi" if self._wifi else "ethernet"
        self.error = None
        self.detail = None
        self.joins = 0
        self.failures = 0
        self.rebuilds = 0

    def step(self):
        """Whether there is a link; what has to be done for one is done meanwhile."""
        now = self._ticks_ms()
        if now < self._look_at:
            return self._is_up
        self._look_at = now + _LOOK_MS
        try:
            self._is_up = self._look(now)
        except Exception as error:  # drivers raise OSError, RuntimeError, ValueError and more
            self._fail("radio-error", "%s: %s" % (type(error).__name__, error))
            self.rebuild()
            self._look_at = now + _JOIN_MS
        return self._is_up

    def rebuild(self):
        """Let go of the interface object; the next step makes a new one."""
        nic = self._nic
        self._nic = None
        self._is_up = False
        self._tries = 0
        self.rebuilds += 1
        try:
            if nic is not None:
                nic.active(False)
        except Exception as error:
            self.detail = str(error)  # it is given up anyway

    def _look(self, now):
        if self._nic is None:
            self._nic = self._open()
            self._join_at = now
        if self._nic.isconnected() and self._address() != _HIDDEN:
            self._join_at = now + _JOIN_MS  # a link that is lost gets time to come back by itself
            self._tries = 0
            self._seen = self.error = self.detail = None
            return True
        self._seen = self._word() or self._seen
        if now >= self._join_at:
            if self._tries:
                self._fail(self._seen or ("join-failed" if self._wifi else "no-cable"), None)
            if self._tries >= _TRIES:
                self.rebuild()
                return False
            self._join_at = now + _JOIN_MS
            self._tries += 1
            self._seen = None
            self._join()
        return False

    def _fail(self, word, detail):
        self.error = word
        self.detail = detail
        self.failures += 1

    def _word(self):
        """What the driver says about a link that is not there, as far as it says anything."""
        if self._nic.isconnected():
            return "no-address"
        if self.is_winc or not hasattr(self._nic, "status"):
            return None
        return (_WIFI_WORDS if self._wifi else _LAN_WORDS).get(self._nic.status())

    def _open(self):
        network = self._network
        if network is None:
            raise OSError("this firmware has no network module")
        for setting, value in (("country", self._country), ("hostname", self._name[:32])):
            if value and hasattr(network, setting):
                getattr(network, setting)(value)
        if self.is_winc:
            nic = network.WINC()
        elif self._wifi:
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
        self.joins += 1
        ssid = self._wifi["ssid"]
        key = self._wifi.get("key", "")
        if self.is_winc:
            self._seen = load("winc").join(self._nic, ssid, key)
            forget("winc")
            return
        if self._tries > 1 and hasattr(self._nic, "disconnect"):
            self._nic.disconnect()
        if key:
            self._nic.connect(ssid, key)
        else:
            self._nic.connect(ssid)

    def _address(self):
        return self._nic.ifconfig()[0]

    def info(self):
        """What is known of the link."""
        known = {"kind": self.kind, "joins": self.joins, "rebuilds": self.rebuilds}
        if self._is_up:
            try:
                known["ip"] = self._address()
                strength = self.rssi()
                if strength is not None:
                    known["rssi"] = strength
            except Exception as error:
                self.detail = str(error)
        return known

    def rssi(self):
        """Signal strength in dBm, or None."""
        if not self._is_up or not self._wifi:
            return None
        try:
            return self._nic.rssi() if self.is_winc else self._nic.status("rssi")
        except Exception:
            return None  # a driver that cannot say
