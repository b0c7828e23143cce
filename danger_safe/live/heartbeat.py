"""Heartbeat for supervisors that restart a hanging service: systemd's watchdog, a container's health check.

The environment variable NOTIFY_SOCKET is systemd's (Type=notify, WatchdogSec); DANGER_SAFE_HEARTBEAT names a file whose
modification time is updated. Without both, nothing happens.
"""

import contextlib
import os
import socket
import time
from pathlib import Path

BEAT_S = 5.0  # seconds between two beats


class Heartbeat:
    """Signals that the service is ready, alive and stopping."""

    def __init__(self):
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._file = os.environ.get("DANGER_SAFE_HEARTBEAT", "")
        self._last = 0.0

    def start(self) -> None:
        """Signal that the service is ready."""
        self._notify("READY=1")
        self.beat()

    def beat(self) -> None:
        """Signal that the service is alive; may be called often, from the loop that must not hang."""
        if time.monotonic() - self._last < BEAT_S and self._last:
            return
        self._last = time.monotonic()
        self._notify("WATCHDOG=1")
        if self._file:
            with contextlib.suppress(OSError):  # the supervisor sees an old time then
                Path(self._file).touch()

    def stop(self) -> None:
        """Signal that the service is stopping, which may take a few seconds."""
        self._notify("STOPPING=1")

    def _notify(self, message: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), address)
