"""A virtual /sys with USB devices that come, go and change, for tests without hardware."""

import shutil
from pathlib import Path


class UsbTree:
    """`FLEETCTL_SYSFS` points at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "bus" / "usb" / "devices"
        if self._folder.exists():
            return  # another process has made it
        self._folder.mkdir(parents=True)
        self.plug("usb1", "1D6B:0002", product="xHCI Host Controller")

    def plug(
        self,
        port: str,
        usb_id: str,
        *,
        serial: str | None = None,
        product: str | None = None,
        hidraw: str = "",
    ) -> None:
        """A device appears at a port, or becomes another one there."""
        self.pull(port)
        made = self._folder / f".{port}"
        made.mkdir()
        vendor, device = usb_id.lower().split(":")
        (made / "idVendor").write_text(f"{vendor}\n")
        (made / "idProduct").write_text(f"{device}\n")
        if serial is not None:
            (made / "serial").write_text(f"{serial}\n")
        if product is not None:
            (made / "product").write_text(f"{product}\n")
        if hidraw:
            (made / f"{port}:1.0" / "0003:15A2:0073.0001" / "hidraw" / hidraw).mkdir(parents=True)
        made.rename(self._folder / port)  # whole from the first moment on

    def pull(self, port: str) -> None:
        """The device at a port is gone."""
        shutil.rmtree(self._folder / port, ignore_errors=True)
