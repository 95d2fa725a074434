"""What this machine says of targets: which addresses are its own, which socket files lead nowhere good."""

import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ENGINES: Final = (
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/snapd.socket",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
)
"""Sockets that whoever may write to is root."""


def is_local_address(address: str) -> bool:
    """Return whether an address belongs to some interface of this machine, as of now.

    Asked of the kernel, by binding to it: no list of interfaces could go stale.
    """
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


class Sockets:
    """Judges socket files by what they are, not by what they are called: links lead nowhere else."""

    def __init__(
        self, own: Iterable[Path] = (), allowed: Iterable[str] = (), named: Iterable[str] = ()
    ) -> None:
        """own: the gateway's.

        allowed: folders whose sockets the API may name. named: sockets that the configuration file names.
        """
        self._forbidden = (*own, *(Path(engine) for engine in ENGINES))
        self._allowed = tuple(allowed)
        self._named = frozenset(map(os.path.realpath, named))

    def forbidden(self, path: str) -> str:
        """Return why nobody may be sent to this socket; empty if one may."""
        mine = _identity(Path(path))
        if any(_identity(each) == mine for each in self._forbidden if mine is not None):
            return "a socket that would give the machine away"
        if any(os.path.realpath(path) == os.path.realpath(each) for each in self._forbidden):
            return "a socket that would give the machine away"  # it is not there yet
        return ""

    def unlisted(self, path: str) -> str:
        """Return why the API may not name this socket; empty if it may."""
        real = Path(os.path.realpath(path))
        if str(real) in self._named or any(
            real.is_relative_to(os.path.realpath(each)) for each in self._allowed
        ):
            return ""
        return "which the file does not name and is not below admin.allowed_sockets"


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from all others; None if it is not there, or not to be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
