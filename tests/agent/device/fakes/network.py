"""`network`: a WiFi that is always there for whoever asks to join. The packets take the desk's own sockets."""

STA_IF = 0


def country(code):
    assert len(code) == 2


def hostname(name):
    assert 0 < len(name) <= 32


class WLAN:
    def __init__(self, interface):
        assert interface == STA_IF
        self._is_active = False
        self._joined = None

    def active(self, flag):
        self._is_active = flag

    def connect(self, ssid, key=None):
        if not self._is_active:
            raise OSError("WiFi is off")
        self._joined = ssid

    def disconnect(self):
        self._joined = None

    def isconnected(self):
        return self._joined is not None

    def ifconfig(self):
        address = "127.0.0.1" if self._joined else "0.0.0.0"
        return (address, "255.0.0.0", "0.0.0.0", "0.0.0.0")

    def status(self, what=None):
        if what is None:
            return 3 if self._joined is not None else 0
        assert what == "rssi"
        return -58
