"""The agent's core: builds the parts, runs them in turns, speaks for the camera.

    agent = Agent(hal, settings, facts)
    agent.start()                  # storage, slots, first messages
    while not agent.is_over:       # a command may end it
        if not agent.step():       # bounded; False: nothing is to be done at once
            hal.sleep_ms(IDLE_MS)
    agent.stop()                   # says goodbye

The parts take turns in one thread. What one of them raises becomes an event and the others go on; a part that does
nothing but raise ends the agent, and main.py restarts the camera. The longest turn is a connection attempt
(`connect_timeout_ms`); everything else takes milliseconds, apart from the signature check of an update.

RAM BUDGET: what the parts say; here a few objects and the words of the status.
"""

import gc

from camera_agent import crypto, outbox
from camera_agent import led as led_words
from camera_agent.agents import Agents
from camera_agent.commands import Commands
from camera_agent.flight import Flight
from camera_agent.heap import const, forget, load
from camera_agent.led import Led
from camera_agent.link import Link
from camera_agent.pictures import Pictures
from camera_agent.trouble import Trouble
from camera_agent.updater import Updater
from camera_agent.vision import Vision

VERSION = "0.1.0"
CAPABILITIES = ("benchmark", "classify", "identify", "reboot", "snapshot", "update-model")

IDLE_MS = const(5)  # sleep when no part has anything to do
_UPDATER_MS = const(20)  # a turn of the updater, so that frames come in time
_LOOK_MS = const(500)  # between two comparisons of the status
_STRIKES = const(100)  # exceptions in a row from one part, then the camera restarts
_FRESH_HEAP_MS = const(5000)  # for the messages about it to leave
_WORDS_MS = const(5000)  # for the last words of an agent that failed
_REBUILD_EVERY = const(8)  # times that nobody answered at the broker's address
_PROBLEM_CHARS = const(64)


class Agent:
    """See the module's docstring."""

    def __init__(self, hal, settings, facts=None):
        """`facts`: what boot.choose() answered."""
        self.hal = hal
        self._facts = facts or {}
        self.network = self._facts.get("network")  # of netconfig.overlay()
        self.settings = settings
        self.is_over = False
        self.asleep_s = 0  # how long the camera sleeps when it is over
        self.sleep_problem = None
        self.outbox = outbox.make(hal, settings)
        self.trouble = Trouble(hal, self.outbox.put)
        self.led = Led(hal, self.outbox.put)
        self.link = Link(hal, settings, self.outbox, self.status)
        self.files = None
        self.updater = None
        self.agents = None
        self.vision = None
        self.commands = Commands(hal, self.outbox.put, self._is_on_trial)
        self.commands.benchmark = self._start_benchmark
        self.pictures = Pictures(hal, settings, self.outbox)
        self.commands.snapshot = self.pictures.start
        self._bench = None  # a benchmark under way; vision pauses meanwhile
        self._strikes = {}
        self._update_state = None  # what was reported last of the running update
        self._told = None  # what of the status was told
        self._look_at = 0
        self._telemetry_at = 0
        self._refused = []  # names in the desired config that were refused
        self._restart_at = None  # when the camera restarts by itself
        self.flight = Flight(hal, self.outbox.put)
        self.link.on_lost = self._on_lost
        self._net_failures = 0
        self.fresh = None  # only with a key for it

    def start(self):
        """Open storage, decide which model to use, say that the camera has started. May take some seconds, and at
        the very first start as long as it takes to fill the slots with zeros."""
        hal = self.hal
        self.led.show("starting")
        hal.configure(self.settings)
        boot = "%s: agent %s on firmware %s" % (hal.reset_cause(), VERSION, hal.firmware())
        self.outbox.put("event", {"kind": "boot", "text": boot})
        self.files = hal.open_regions(self.settings["slot_bytes"])
        of = self.settings
        ring = crypto.Ring(of["keys"], of["recovery"], of["key_serial"], of["key_epoch"])
        self.updater = Updater(hal, self.files, ring, self.link, self._on_update)
        self.agents = Agents(hal, self.files, ring.known, self.updater.buffer, self._facts, self._on_update)
        self.updater.agents = self.agents
        if self.agents.is_safe:
            self.vision = load("resting").Resting()
        else:
            self.vision = Vision(hal, self.settings, self.updater, self.outbox.put, self.trouble.report)
        self.vision.on_frame = self.pictures.on_frame
        self.pictures.vision = self.vision
        self.agents.begin()
        self._turn("updater", self.updater.boot)
        handlers = self.link.handlers
        handlers["daemon"] = lambda _kind, _parts, message: self.updater.on_keys(message["keys"])
        handlers["desired"] = self._on_desired
        if of["fresh_key"]:
            self.fresh = load("fresh").attach(hal, of, self.link, self.updater.on_keys)
        handlers["cmd"] = self._on_command
        handlers["release"] = self._on_release
        handlers["blob"] = self._on_blob
        self._telemetry_at = hal.ticks_ms() + 1000 * self.settings["telemetry_s"]
        gc.collect()

    def step(self):
        """One turn of every part. True: there is more to do at once."""
        hal = self.hal
        hal.feed()
        is_busy = self._turn("link", self.link.step)
        until = hal.ticks_ms() + _UPDATER_MS
        while self._turn("updater", self.updater.step):
            is_busy = True
            if hal.ticks_ms() >= until:
                break
        if self._bench is None:
            is_busy = self._turn("vision", self.vision.step) or is_busy
        elif self._turn("benchmark", self._bench.step):
            is_busy = True
        else:
            self._bench = None
            forget("bench")
        self._turn("pictures", self.pictures.step)
        self._turn("agent", self._look_around)
        self.led.step()
        return is_busy

    def stop(self):
        """Send what is batched and leave the broker properly."""
        self._turn("vision", self.vision.flush)
        self._turn("outbox", self.outbox.flush)
        self._turn("updater", self.agents.close)
        self._turn("link", self.link.close)

    def pause(self):
        """Leave the board to a person: nothing that goes on counts as failed for it."""
        if self.vision is not None:
            self._turn("updater", self.updater.pause)
            self.stop()

    def last_words(self, error):
        """The agent cannot go on: tell why, if there is a connection. Never raises."""
        try:
            self.led.show("crashed")
            self.trouble.report("agent", error)
            until = self.hal.ticks_ms() + _WORDS_MS
            while self.link.connected and len(self.outbox) and self.hal.ticks_ms() < until:
                self.hal.feed()
                self.link.step()
                self.hal.sleep_ms(IDLE_MS)
        except Exception:
            gc.collect()  # nothing can be said then; the camera restarts all the same

    def _turn(self, name, work):
        """Let a part do its work. What it raises is reported; too often in a row, and it ends the agent."""
        try:
            answer = work()
            self._strikes[name] = 0
            return answer
        except Exception as error:
            self._strikes[name] = self._strikes.get(name, 0) + 1
            if self._strikes[name] >= _STRIKES:
                raise
            if isinstance(error, MemoryError):
                gc.collect()
            self.trouble.report(name, error)
            return False

    # --- what comes down ----------------------------------------------------------------------------------

    def _on_desired(self, _kind, _parts, message):
        self.updater.on_desired(message)
        refused = []
        config = message["config"]
        if config:
            refused = load("tuning").override(self.settings, config)
            forget("tuning")
            if ("wifi" in config or "country" in config) and not self._is_on_trial():
                self._netconfig("on_desired", config, refused)
        if refused != self._refused:
            self._refused = refused
            self.outbox.put("event", {"kind": "config-refused", "text": ", ".join(refused)[:1000]})

    def _netconfig(self, what, *args):
        getattr(load("netconfig"), what)(self, *args)
        forget("netconfig")

    def _on_command(self, _kind, parts, message):
        self.commands.on_command(parts[0], message)

    def _on_release(self, _kind, parts, payload):
        self.updater.on_release(parts[0], payload)

    def _on_blob(self, _kind, parts, payload):
        self.updater.on_block(parts[0], parts[1], payload)

    # --- what goes up -------------------------------------------------------------------------------------

    def _on_update(self, state, reason=None, detail=None, **extra):
        self._update_state = state
        extra["state"] = state
        if reason is not None:
            extra["reason"] = reason
        if detail is not None:
            extra["detail"] = detail
        self.outbox.put("update", extra)

    def status(self):
        """The body of `up/status`."""
        hal = self.hal
        known = self.updater.status()
        storage = hal.storage_info()
        storage["slot_bytes"] = known["slot_bytes"]
        network = hal.network_info()
        link = self.link
        network["reconnects"] = link.reconnects
        network["failed"] = link.failed
        network["kicked"] = link.kicked
        network["dead"] = link.dead
        network["resets"] = self.flight.resets
        network.update({"asleep_s": self.asleep_s} if self.asleep_s else {})
        told = {
            "reset": hal.reset_cause(),
            "agent": VERSION,
            "firmware": hal.firmware(),
            "board": hal.arch(),
            "uid": hal.uid(),
            "generation": known["generation"],
            "release": known["release"],
            "trial": self.agents.trial() or known["trial"],
            "keys": known["keys"],
            "storage": storage,
            "network": network,
            "capabilities": self._capabilities(),
            "agent_release": self.agents.status(),
            "problems": self.problems(known),
        }
        return self.fresh.ask(told) if self.fresh else told

    def _capabilities(self):
        able = list(CAPABILITIES)
        if self.agents.can_change:
            able.append("update-agent")
        if self.hal.has_watchdog():
            able.append("watchdog")
        return able

    def problems(self, known):
        """Everything a person should know, as words; `known` is updater.status()."""
        # whether there is a model now is what vision says; the updater's word is about the start
        found = [word for word in known["problems"] if word != "no-model"] + self.vision.problems()
        found += [word for word in (self.sleep_problem, self.outbox.problem) if word]
        found += self.agents.problems
        if not self.settings["keys"]:
            found.append("no-keys")
        if self.fresh:
            found += self.fresh.problems(known["generation"])
        found += ["config-ignored:" + name for name in self.settings["ignored"]]
        return [word[:_PROBLEM_CHARS] for word in found[:32]]

    def _look_around(self):
        now = self.hal.ticks_ms()
        self._choose_led()
        if now >= self._telemetry_at:
            self._telemetry_at = now + 1000 * self.settings["telemetry_s"]
            self._send_telemetry(now)
        if now >= self._look_at:
            self._look_at = now + _LOOK_MS
            if self.fresh:
                self.fresh.step()
            self._tell_changes()
            self._note_absence(now)
            if self.network:
                self._netconfig("look", now)
            self.outbox.tidy(now)
            self.agents.look(now, self.link, self.outbox, self.vision, self.trouble)
            self._consider_restart(now)

    def _choose_led(self):
        true = []
        vision = self.vision
        if self.commands.is_identifying():
            true.append("identify")
        if not vision.has_eye:
            true.append("no-camera")
        if self._is_on_trial():
            true.append("trial")
        if self.agents.is_safe:
            true.append("safe-mode")
        if self.link.state == "no-network":
            true.append("no-network")
        elif not self.link.connected:
            true.append("no-broker")
        if self._update_state in ("transferring", "verifying"):
            true.append("updating")
        if vision.failure:
            true.append("model-failed")
        elif not vision.has_model:
            true.append("no-model")
        state = led_words.choose(true)
        if state == "identify" and self.led.state != state:
            self.led.show(state, load("identify").Show(self.settings["camera"]))
            forget("identify")
        self.led.show(state)

    def _is_on_trial(self):
        choice = self.updater.model_to_use()
        return (choice is not None and choice.trial) or self.agents.is_busy

    def _start_benchmark(self, id_, args):
        from camera_agent import bench  # memory for the few who ask

        if self._bench is not None:
            return "busy"
        self._bench, reason = bench.begin(self.hal, self.vision, self.outbox.put, self.is_updating, id_, args)
        return reason

    def is_updating(self):
        """Whether a restart would do harm."""
        return self._is_on_trial() or self._update_state in ("transferring", "verifying")

    def _tell_changes(self):
        """A fresh status when something changed that others act upon. While there is no connection nothing needs
        to be said: every connection begins with a status."""
        known = self.updater.status()
        release = known["release"]["digest"] if known["release"] else None
        agents = (self.agents.on_trial, self.agents.confirmed)
        now_true = (known["generation"], release, known["trial"], known["keys"], agents, self.problems(known))
        if now_true != self._told:
            if self._told is not None and self.link.connected:
                self.link.publish_status()
            self._told = now_true

    def _on_lost(self, reason, detail):
        self.flight.note(reason, detail)
        if self.flight.unreached and self.flight.unreached % _REBUILD_EVERY == 0:
            self.hal.network_rebuild()

    def _note_absence(self, now):
        """Let the flight recorder see what the network does."""
        if not self.link.connected:
            failures, word, detail = self.hal.network_trouble()
            if failures != self._net_failures and word:
                self.hal.say("fleetd agent: %s (%s)" % (word, detail))
                self.flight.note(word, detail)
            self._net_failures = failures
        self.flight.step(now, self.link.connected)

    def _send_telemetry(self, now):
        hal = self.hal
        body = self.vision.telemetry()
        body["heap_free"] = hal.heap_free()
        body["uptime_s"] = now // 1000
        body["queue"] = len(self.outbox)
        body["dropped"] = dict(self.outbox.dropped)
        body["reconnects"] = self.link.reconnects
        free = hal.storage_info().get("free")
        if free is not None:
            body["storage_free"] = free
        body.update(hal.telemetry())
        self.outbox.put("telemetry", body)

    # --- restarts -----------------------------------------------------------------------------------------

    def _consider_restart(self, now):
        commands = self.commands
        if commands.restart_at is not None:
            if now >= commands.restart_at or 0 < commands.restart_reply < self.outbox.low:
                self.is_over = True
        elif self._restart_at is not None:
            self.is_over = now >= self._restart_at or len(self.outbox) == 0
        elif self.flight.is_stuck(now, self.link.state != "no-network", self.settings["offline_reset_s"]):
            if not self._is_on_trial():
                self.flight.keep()
                self.is_over = True
        elif self.vision.wants_fresh_heap:
            self.restart_soon(now, "a model needs memory in one piece")
        elif self.agents.wants_restart:
            self.restart_soon(now, "another agent, or another try")
        elif self.agents.is_safe and self._is_on_trial():
            self.agents.leave_safe_mode()  # a new model is to be tried, and only an ordinary start can do that
        elif self.settings["sleep_s"] and not self.is_updating() and not self._bench:
            self.asleep_s = load("sleeping").consider(self)
            self.is_over = self.asleep_s > 0

    def restart_soon(self, now, why):
        """Restart when the word about it has left."""
        self._restart_at = now + _FRESH_HEAP_MS
        self.outbox.put("event", {"kind": "restart", "text": why})
