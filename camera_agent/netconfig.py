"""Another WiFi from afar: tried, and taken back by itself when the camera does not get back to its broker.

    state = overlay(hal, settings)               # at the start: None, "trial" or "reverted"
    on_desired(agent, config, refused)           # what `down/desired` wants; what is fine leaves `refused`
    look(agent, now)                             # after a start with a state

Only `wifi` and `country` can be changed like this. The broker's address cannot: whoever once controls the broker could
send every camera to another one for good. What was confirmed outlives the start, in two small notes beside config.json
(`net_ok`, `net_try`), which are written in place; a note that was torn counts as none.

RAM BUDGET: 2 KB of code, loaded at the start, and when such a setting comes.
"""

import json
from binascii import crc32

from camera_agent.heap import const, load

NAMES = ("wifi", "country")
_STARTS = const(2)  # of a trial
_TRIAL_MS = const(300_000)  # for the connection to come back
_NOTE_CHARS = const(240)


def _read(hal, name):
    text = hal.kept(name)
    if text[8:9] != " " or "%08x" % crc32(text[9:].encode()) != text[:8]:
        return {}
    try:
        found = json.loads(text[9:])
    except ValueError:
        return {}
    return found if type(found) is dict else {}


def _write(hal, name, record):
    """Raises OSError, also where nothing can be kept."""
    text = json.dumps(record)
    hal.keep("%08x %s" % (crc32(text.encode()), text), name)
    if _read(hal, name) != record:
        raise OSError("the note does not read back")


def overlay(hal, settings):
    """Put what was confirmed, or is to be tried, over the settings of config.json."""
    settings.update(_read(hal, "net_ok").get("values", {}))
    tried = _read(hal, "net_try")
    values = tried.get("values")
    if not values:
        return None
    try:
        if tried["starts"] >= _STARTS:
            _write(hal, "net_try", {"failed": values})
            return "reverted"
        _write(hal, "net_try", {"values": values, "starts": tried["starts"] + 1})
    except (OSError, KeyError):
        return None  # it cannot be counted, so it is not tried
    settings.update(values)
    return "trial"


def take(hal, settings, config, refused):
    """Whether the camera has to restart to try what is wanted. Wrong values, and what failed before, stay refused."""
    fields = load("settings").FIELDS
    wanted = {}
    for name in NAMES:
        if name in config and (config[name] is None or fields[name][0](config[name])):
            wanted[name] = config[name]
    changes = {name: wanted[name] for name in wanted if wanted[name] != settings[name]}
    if changes:
        record = {"values": wanted, "starts": 0}
        if _read(hal, "net_try").get("failed") == wanted or len(json.dumps(record)) > _NOTE_CHARS:
            return False
        try:
            _write(hal, "net_try", record)
        except OSError:
            return False
    for name in wanted:
        refused.remove(name)
    return bool(changes)


def watch(hal, settings, connected, now):
    """How the trial ends, or None. After "reverted" the camera has to restart."""
    tried = _read(hal, "net_try")
    try:
        if connected:
            _write(hal, "net_ok", {"values": {name: settings[name] for name in NAMES}})
            _write(hal, "net_try", {})
            return "confirmed"
        if now >= _TRIAL_MS:
            _write(hal, "net_try", {"values": tried.get("values"), "starts": _STARTS})
            return "reverted"  # the next start says so, and takes the old ones
    except OSError:
        return None  # the starts are counted
    return None


def on_desired(agent, config, refused):
    """Restart the camera if another network is to be tried."""
    if agent.network != "trial" and take(agent.hal, agent.settings, config, refused):
        agent.restart_soon(agent.hal.ticks_ms(), "to try another network")


def look(agent, now):
    """Tell how the trial has ended, or end it."""
    if agent.network == "trial":
        state = watch(agent.hal, agent.settings, agent.link.connected, now)
        if state == "reverted":  # which is told after the restart
            agent.is_over = True
            return
        if state is None:
            return
        agent.network = state
    kind = "network-confirmed" if agent.network == "confirmed" else "network-reverted"
    agent.network = None
    agent.outbox.put("event", {"kind": kind, "text": "wifi, country"})
