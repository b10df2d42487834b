"""What a board profile may say: the shape of `profiles/*.toml`, checked when it is read."""

from itertools import pairwise
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleetd.protocol.messages import LedColor, LedPattern

Format = Literal["tflite", "vela", "stedgeai"]
UsbMode = Literal["running", "bootloader", "rom"]
# What a light can mean. The agent's own states (fleetd/boards/agent_leds.toml) come on top.
FirmwareWord = Literal[
    "bootloader",  # the board's boot program waits for a host, or serves one
    "default-main",  # firmware fine, nobody's program on the drive: the storage was formatted
    "main-running",  # a program of somebody runs
    "panic",  # the firmware has given up
    "flash-writing",  # do not cut the power
    "power",  # a power supply, and nothing else
    "dark",  # nothing is lit
]
Tool = Literal["nxp", "dfu", "ide"]
USB_ID: Final = r"^[0-9A-F]{4}:[0-9A-F]{4}$"


class Data(BaseModel):
    """Part of a profile: frozen, and a name that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Memory(Data):
    """What a board has to work with, in bytes. An allocation must fit in one block of the heap."""

    heap_blocks: tuple[int, ...] = Field(min_length=1)
    image_pool: int = Field(ge=0)
    sdram: int = Field(default=0, ge=0)

    @property
    def largest_block(self) -> int:
        """The largest object that MicroPython's heap can hold."""
        return max(self.heap_blocks)


class Slot(Data):
    """Room for one release on a storage backend: as the agent makes it, and the most a setting can make it."""

    backend: Literal["flash", "sdcard"]
    bytes: int = Field(gt=0)
    most: int | None = None


class Firmware(Data):
    """How the vendor's builds of a board are told apart."""

    folder: str = Field(pattern=r"^[A-Z0-9_]+$")  # in the vendor's releases and in OpenMV IDE
    machine: str = Field(min_length=3)  # os.uname().machine begins so
    markers: tuple[str, ...] = Field(min_length=1)  # one of these texts is inside a firmware image


class Usb(Data):
    """A USB id (VID:PID, upper case hex) and what the board is doing when it shows it."""

    id: str = Field(pattern=USB_ID)
    mode: UsbMode
    shared: bool = False  # other boards show the same id


class Light(Data):
    """One thing the board's own firmware does with the status LED."""

    color: LedColor
    pattern: LedPattern
    means: FirmwareWord
    text: str = Field(min_length=10)
    times_ms: tuple[int, ...] = ()  # lit, dark, lit, ... ; empty: steady, or not known
    certain: bool = True  # False: documented by the vendor, but not found in the firmware


class Part(Data):
    """A piece of the board's flash, in bytes. `alt`, `address`: where a DFU bootloader offers it."""

    name: Literal["fcb", "bootloader", "firmware", "storage", "romfs"]
    bytes: int = Field(gt=0)
    start: int | None = Field(default=None, ge=0)
    file: str | None = None
    alt: int | None = Field(default=None, ge=0)
    address: int | None = Field(default=None, ge=0)


class Power(Data):
    """Figures somebody measured or published; None: not known."""

    idle_ma: float | None = Field(default=None, gt=0)
    working_ma: float | None = Field(default=None, gt=0)
    deepsleep_ma: float | None = Field(default=None, gt=0)
    source: str = Field(min_length=5)


class Recovery(Data):
    """How the board comes back: the tool, the way into its bootloader, and what to bridge when that is gone."""

    tool: Tool
    enter: Literal["plug-in", "double-tap"] = "plug-in"
    bridge: tuple[str, str] | None = None  # the two pins
    switch: str | None = None  # or a switch
    ide_only: tuple[Literal["erase", "reflash", "jumper"], ...] = ()  # leave these to OpenMV IDE
    notes: tuple[str, ...] = ()


class BoardProfile(Data):
    """One board. `arch` is what omv.arch() starts with. Without memory and slots nothing is known of them."""

    key: str
    name: str
    aliases: tuple[str, ...] = ()
    arch: str = Field(min_length=1)
    model_formats: tuple[Format, ...]
    memory: Memory | None = None
    slots: tuple[Slot, ...] = ()
    has_power_led: bool = False  # a second LED shows the supply, green among its colours
    freezes_on_fault: bool = False  # a firmware fault stops everything and leaves the LED as it was
    has_watchdog: bool = True
    firmware: Firmware | None = None
    usb: tuple[Usb, ...] = ()
    leds: tuple[Light, ...] = ()
    flash: tuple[Part, ...] = ()
    power: Power | None = None
    recovery: Recovery = Recovery(tool="ide")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        """What one part of a profile says must not contradict another."""
        seen = [(one.color, one.pattern) for one in self.leds]
        twice = {f"{color} {pattern}" for color, pattern in seen if seen.count((color, pattern)) > 1}
        if twice:
            raise ValueError(f"leds: {', '.join(sorted(twice))} has two meanings; keep one")
        ids = [one.id for one in self.usb]
        if len(set(ids)) != len(ids):
            raise ValueError("usb: an id stands there twice; a board shows one id in one mode only")
        names = [one.name for one in self.flash]
        if len(set(names)) != len(names):
            raise ValueError("flash: a part stands there twice")
        placed = sorted((p.start, p.start + p.bytes, p.name) for p in self.flash if p.start is not None)
        for (_, end, below), (start, _, above) in pairwise(placed):
            if end > start:
                raise ValueError(f"flash: {below} reaches into {above}")
        if self.recovery.tool == "dfu":
            self._check_dfu()
        if self.recovery.tool == "nxp" and not {"bootloader", "firmware", "storage"} <= set(names):
            raise ValueError("recovery.tool is nxp, which needs flash parts bootloader, firmware and storage")
        return self

    def _check_dfu(self) -> None:
        if self.usb_id("bootloader") is None:
            raise ValueError('recovery.tool is dfu, but no usb entry has mode = "bootloader"')
        for name in ("firmware", "storage"):
            part = self.part(name)
            rung = "reflash" if name == "firmware" else "erase"
            if rung not in self.recovery.ide_only and (part is None or part.alt is None):
                raise ValueError(
                    f'recovery.tool is dfu: flash part {name} needs an alt, or ide_only has "{rung}"'
                )

    def part(self, name: str) -> Part | None:
        """The flash part of that name."""
        return next((part for part in self.flash if part.name == name), None)

    def usb_id(self, mode: UsbMode) -> str | None:
        """The first USB id of that mode."""
        return next((one.id for one in self.usb if one.mode == mode), None)
