"""The hardware of an OpenMV camera behind one object. Whatever is not plain Python goes through it.

Written for firmware 4.5.6 to 5.0 on every board that runs `ml`; what a board lacks is left out, not guessed. The
desk has a stand-in with the same methods (fleetd/simulator/desk_hal.py), tests another one.

    hal = Hal()                     # time, LED, identity, storage: everything that needs no settings
    hal.configure(settings)         # network, clock, watchdog
    hal.open_regions(slot_bytes)    # regions.Files
    hal.capture(), hal.load_model(...), hal.open_socket(...) ...

RAM BUDGET: about 2 KB of objects; the image sensor's, network's and model's own memory is the firmware's.
"""

import gc
import os
import sys
import time
from binascii import hexlify

from camera_agent import led, regions
from camera_agent.eye import Eye
from camera_agent.heap import const, firmware, forget, load
from camera_agent.netif import Interface
from camera_agent.sockets import open_stream

_UNIX_2000 = const(946_684_800)  # what ports that count from 2000 are short of
_NTP_WAIT_MS = const(1000)
_NTP_EVERY_MS = const(6 * 3_600_000)
_NTP_AGAIN_MS = const(300_000)
_SECTOR = const(512)
_NOTE_BYTES = const(256)
_PAUSE_MS = const(120_000)  # for a person at the REPL of a board without watchdog


class Hal:
    """One camera. See the module's docstring; methods that may raise say so."""

    def __init__(self, storage_path=None):
        """`storage_path`: the folder for everything, found by itself on a camera."""
        self._machine = firmware("machine")
        self._omv = firmware("omv")
        self._last_ticks = time.ticks_ms()
        self._last_micros = None  # not asked yet
        self._micros = 0
        self._ticks = 0
        board = load("board")
        self._cause = board.reset_word(self._machine)
        self._storage = storage_path or board.storage()
        self._is_one_sector = board.is_one_sector(self._storage)
        forget("board")
        self._is_raw = False  # whether slots are in flash without files
        self._net = None
        self._tls = None  # the settings, until a connection needs them
        self._secure = None
        self._ntp = None
        self._ntp_at = 0
        self._is_clock_set = False
        self._unix_start = None  # Unix seconds when ticks_ms() was 0, as fleetd told
        self._watchdog = None
        self._eye = Eye(self.ticks_ms)
        self._leds = self._open_leds()
        self._color = (0, 0, 0)
        self._pattern = "off"
        self._led_since = 0
        self._is_lit = None

    def configure(self, settings):
        """Take the settings that concern the hardware."""
        self._net = Interface(settings, self.ticks_ms)
        self._tls = settings["tls"]
        self._ntp = settings["ntp"]
        self._eye.configure(settings)
        if settings["watchdog_s"] and not settings["debug"]:
            self._watchdog = load("board").open_watchdog(self._machine, settings["watchdog_s"] * 1000)

    # --- time ---------------------------------------------------------------------------------------------

    def ticks_ms(self):
        """Milliseconds since the start. Never wraps, as long as it is asked more often than every few days."""
        now = time.ticks_ms()
        self._ticks += time.ticks_diff(now, self._last_ticks)
        self._last_ticks = now
        return self._ticks

    def ticks_us(self):
        """Microseconds, for durations of a few seconds: how long a picture takes. Never wraps."""
        now = time.ticks_us()
        if self._last_micros is not None:
            self._micros += time.ticks_diff(now, self._last_micros)
        self._last_micros = now
        return self._micros

    def unix(self):
        """Unix seconds once NTP or fleetd has told them in this boot, else None: a battery clock is only a guess."""
        if not self._is_clock_set:
            return None if self._unix_start is None else self._unix_start + self.ticks_ms() // 1000
        return int(time.time()) + (_UNIX_2000 if time.gmtime(0)[0] == 2000 else 0)

    def set_unix(self, seconds):
        """The time, as fleetd has told it; NTP goes before."""
        self._unix_start = seconds - self.ticks_ms() // 1000

    def sleep_ms(self, duration):
        """Wait."""
        time.sleep_ms(duration)

    def say(self, text):
        """A line for whoever sits at the REPL."""
        print(text)  # noqa: T201 (there is nothing else to say it with)

    # --- who and where ------------------------------------------------------------------------------------

    def urandom(self, count):
        """Random bytes from the hardware."""
        return os.urandom(count)

    def uid(self):
        """The chip's unique number in hex."""
        return str(hexlify(self._machine.unique_id()), "ascii")

    def arch(self):
        """The board as OpenMV names it, e.g. "OMVRT1060 32768 SDRAM"."""
        return self._omv.arch() if self._omv else sys.platform

    def firmware(self):
        """The firmware's version, e.g. "4.8.1"."""
        return self._omv.version_string() if self._omv else "unknown"

    def reset_cause(self):
        """Why the camera started, a word of the contract."""
        return self._cause

    def heap_free(self):
        """Bytes, fragments included."""
        return gc.mem_free()

    def telemetry(self):
        """Further fields of `up/telemetry` that this board can measure."""
        strength = self._net.rssi() if self._net else None
        return {} if strength is None else {"rssi": strength}

    # --- network ------------------------------------------------------------------------------------------

    def network_step(self):
        """Drives WiFi or Ethernet; True while there is a link. Asks for the time when that is wanted and due."""
        is_up = self._net.step()
        if is_up and self._ntp and self.ticks_ms() >= self._ntp_at:
            self._ask_time()
        return is_up

    def _ask_time(self):
        self._ntp_at = self.ticks_ms() + _NTP_AGAIN_MS
        try:
            load("clock").ask(self._ntp, self._machine, _NTP_WAIT_MS)
        except Exception:
            return  # no answer: later again; without a clock everything but dates works
        finally:
            forget("clock")
        self._is_clock_set = True
        self._ntp_at = self.ticks_ms() + _NTP_EVERY_MS

    def network_info(self):
        """For `up/status`."""
        return self._net.info()

    def network_trouble(self):
        """(number of failed tries, why the last one failed, what the driver said)."""
        return self._net.failures, self._net.error, self._net.detail

    def network_rebuild(self):
        """A new interface object: the link is there, but leads nowhere."""
        self._net.rebuild()

    def open_socket(self, host, port, timeout_ms):
        """A Stream, in TLS when the settings say so. Raises StreamError."""
        if self._tls and self._secure is None:
            if not self._is_clock_set:
                load("clock").floor(self._machine)
                forget("clock")
            self._secure = load("secure").Secure(self._tls, host)
            self._tls["ca"] = ""  # the context has it now
        wrap = load("winc").Socket if self._net.is_winc else None
        return open_stream(host, port, timeout_ms, self, self._secure, wrap)

    # --- LED ----------------------------------------------------------------------------------------------

    def _open_leds(self):
        found = []
        for name in ("LED_RED", "LED_GREEN", "LED_BLUE"):
            try:
                found.append(self._machine.LED(name))
            except Exception:  # no such LED on this board
                found.append(None)
        return found

    def led(self, color, pattern):
        """Colour and pattern in the contract's words."""
        self._color = led.COLORS[color]
        self._pattern = pattern
        self._led_since = self.ticks_ms()
        self._is_lit = None
        self.led_step()

    def led_step(self):
        """Switch what has to be switched now."""
        is_lit = led.is_lit(self._pattern, self.ticks_ms() - self._led_since)
        if is_lit == self._is_lit:
            return
        self._is_lit = is_lit
        for n in range(3):
            if self._leds[n] is not None:
                if is_lit and self._color[n]:
                    self._leds[n].on()
                else:
                    self._leds[n].off()

    # --- watchdog and restart -----------------------------------------------------------------------------

    def adopt_watchdog(self, watchdog):
        """Go on with one that runs already."""
        self._watchdog = watchdog

    def has_watchdog(self):
        """Whether a hang ends in a restart."""
        return self._watchdog is not None

    def feed(self):
        """Tell the watchdog that everything is well."""
        if self._watchdog is not None:
            self._watchdog.feed()

    def comes_back(self):
        """Whether the board restarts by itself when the REPL is left to a person now: the watchdog sees to it, or a
        timer where there is none."""
        if self._watchdog is not None:
            self._watchdog.feed()
            return True
        try:
            self._timer = self._machine.Timer(-1)
            self._timer.init(period=_PAUSE_MS, mode=self._machine.Timer.ONE_SHOT, callback=self._on_timer)
        except Exception:  # no such timer on this board
            return False
        return True

    def _on_timer(self, _timer):
        self.reset()

    def can_change_agent(self):
        """Whether an agent can run from a slot."""
        return hasattr(firmware("vfs"), "mount")

    def can_sleep(self):
        """Whether the board has a deep sleep that ends by itself."""
        return hasattr(self._machine, "deepsleep")

    def watchdog_bites_asleep(self):
        """Whether the watchdog goes on in deep sleep: on STM32, which are the ports that count from 2000."""
        return time.gmtime(0)[0] == 2000

    def deepsleep(self, seconds):
        """Sleep; the board starts anew afterwards."""
        if hasattr(os, "sync"):
            os.sync()
        self._machine.deepsleep(1000 * seconds)
        self._machine.reset()  # a board that came back from it at once

    def reset(self):
        """Restart the board. What was written is on the medium first."""
        if hasattr(os, "sync"):
            os.sync()
        self._machine.reset()

    # --- storage ------------------------------------------------------------------------------------------

    def storage_path(self):
        """The folder that holds `fleet/`."""
        return self._storage

    def config_path(self):
        """Where the settings are: with the slots, or on /flash when those are on a card."""
        own = self._storage + "/fleet/config.json"
        if not regions.exists(own) and regions.exists("/flash/fleet/config.json"):
            return "/flash/fleet/config.json"
        return own

    def storage_info(self):
        """backend, free and total in bytes."""
        backend = "raw" if self._is_raw else "sdcard" if self._storage.startswith("/sdcard") else "flash"
        try:
            stat = os.statvfs(self._storage)
        except OSError:
            return {"backend": backend}
        return {"backend": backend, "free": stat[0] * stat[3], "total": stat[1] * stat[2]}

    def open_regions(self, slot_bytes):
        """regions.Files for slots, stage, pointers and boot records."""
        if self._is_one_sector:
            files = regions.Files()
            files.problem = "flash-one-sector"
            return files
        vfs = firmware("vfs")
        # A camera that has its slots in files stays with them.
        if hasattr(vfs, "rom_ioctl") and not regions.exists(self._storage + "/fleet/pointer_0.bin"):
            from camera_agent import rawflash

            marker = self._storage + "/fleet/raw.bin"
            files = rawflash.open_raw(vfs, firmware("uctypes"), marker, slot_bytes)
            if files:
                self._is_raw = True
                return files
        free = self.storage_info().get("free", 0)
        return regions.open_files(self._storage, free, slot_bytes, self.feed)

    def open_spool(self, size):
        """A region of at least this size for messages, in blocks of 512 bytes; None without an SD card: internal flash
        wears out, and on some boards all of it is one block. StorageError."""
        if not self._storage.startswith("/sdcard"):
            return None
        region = load("volume").allocate(self._storage + "/fleet/spool.bin", size, self.feed)
        forget("volume")
        region.unit = _SECTOR
        return region

    def keep(self, text, name="note"):
        """Keep a short text over a restart. Raises OSError."""
        if self._is_one_sector:
            return
        path = "%s/fleet/%s.bin" % (self._storage, name)
        with open(path, "r+b" if regions.exists(path) else "wb") as file:
            file.write((text.encode() + b" " * _NOTE_BYTES)[:_NOTE_BYTES])

    def kept(self, name="note"):
        """What was kept, or ""."""
        try:
            with open("%s/fleet/%s.bin" % (self._storage, name), "rb") as file:
                return str(file.read(_NOTE_BYTES), "utf-8").strip()
        except (OSError, UnicodeError):
            return ""

    # --- pictures and models ------------------------------------------------------------------------------

    def prepare(self, width, height, channels, exact=False):
        """Say what the model wants to see, before the next capture(). `exact`: with a window of just this size."""
        self._eye.prepare(width, height, channels, exact)

    def capture(self):
        """An image, or None while exposure settles. Raises OSError or RuntimeError."""
        return self._eye.frame()

    def digest(self, frame):
        """Four hex digits that change with the picture; None when it says nothing, or the firmware has no pixels."""
        try:
            return load("seeing").digest(frame.bytearray())
        except Exception:
            return None
        finally:
            forget("seeing")

    def jpeg(self, frame, quality):
        """A frame as JPEG bytes of its own. The frame is used up on firmware that compresses in place."""
        if hasattr(frame, "to_jpeg"):
            return bytes(frame.to_jpeg(quality=quality).bytearray())
        return bytes(frame.compress(quality=quality).bytearray())

    def load_model(self, content, files, slot):
        """A models.Model. Raises models.ModelError."""
        try:
            return load("engine").load(content, files, self._storage + "/fleet", slot, self.feed)
        finally:
            forget("engine")

    def free_model(self, model):
        """Give back a model's memory."""
        model.close()
