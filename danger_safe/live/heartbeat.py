"""A sign of life for those who start the service again when it hangs: systemd's watchdog, a container's health check.

NOTIFY_SOCKET is systemd's (Type=notify, WatchdogSec), DANGER_SAFE_HEARTBEAT names a file whose time is set to now.
Where neither is in the environment, nothing happens.
"""

import contextlib
import os
import socket
import time
from pathlib import Path

BEAT_S = 5.0  # between two signs


class Heartbeat:
    """Says that the service has begun, lives, and ends."""

    def __init__(self):
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._file = os.environ.get("DANGER_SAFE_HEARTBEAT", "")
        self._last = 0.0

    def begin(self) -> None:
        """Everything is ready."""
        self._notify("READY=1")
        self.beat()

    def beat(self) -> None:
        """Call it as often as you like from the loop whose standstill would mean that nobody listens."""
        if time.monotonic() - self._last < BEAT_S and self._last:
            return
        self._last = time.monotonic()
        self._notify("WATCHDOG=1")
        if self._file:
            with contextlib.suppress(OSError):  # whoever looks at it sees that it is old
                Path(self._file).touch()

    def end(self) -> None:
        """The service is ending, which may take a few seconds."""
        self._notify("STOPPING=1")

    def _notify(self, message: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), address)
