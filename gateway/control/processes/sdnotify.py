"""Notices to systemd (sd_notify(3)): a datagram of lines to the socket it names. Nothing without systemd."""

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """The service manager's socket, if there is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self.watchdog_s = _watchdog_s(environ)
        """How often `watchdog` must be called: half of what systemd allows; None: never."""

    def ready(self) -> None:
        """The gateway serves, and this process is its main one: also where another one was before."""
        self._send(f"READY=1\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The gateway drains and ends."""
        self._send("STOPPING=1")

    def main_pid(self, pid: int) -> None:
        """Another process is the main one from now on."""
        self._send(f"MAINPID={pid}")

    def watchdog(self) -> None:
        """The loop still turns."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows."""
        self._send(f"STATUS={text}")

    def waiting(self, text: str, again_s: float) -> None:
        """The start takes longer, and is no failure; it says so again within `again_s` seconds."""
        self._send(f"STATUS={text}\nEXTEND_TIMEOUT_USEC={round(again_s * 3e6)}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(message.encode(), self._address)
            except OSError:
                return  # the manager is restarting or does not read; its watchdog asks again


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return half of WATCHDOG_USEC, unless it is meant for another process (sd_watchdog_enabled(3))."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 2e6
