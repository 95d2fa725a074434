"""What a store's gateway has one of: the lock, the link's listener, the admin listener.

Acquired at a start, inherited at an upgrade; at the end given up for good, or left to a successor.
"""

import socket
from pathlib import Path
from typing import Final

from gateway.control.processes.listeners import AddressTaken, bound, bound_address
from gateway.control.processes.lock import StoreLock
from gateway.control.processes.succession import Handed
from gateway.link import channel as link

LINK_NAME: Final = "control.sock"


class Handles:
    """The three, as far as this process has them."""

    def __init__(self, folder: Path, admin_address: str) -> None:
        """admin_address: as configured."""
        self.folder = folder
        self._configured = admin_address
        self._lock: StoreLock | None = None
        self._link: socket.socket | None = None
        self._admin: socket.socket | None = None

    @property
    def lock(self) -> StoreLock:
        """Return the store's lock."""
        assert self._lock is not None, "acquired or inherited before anything asks for it"
        return self._lock

    @property
    def link(self) -> socket.socket:
        """Return the socket that workers' links come in on."""
        assert self._link is not None, "acquired or inherited before anything asks for it"
        return self._link

    @property
    def admin(self) -> socket.socket:
        """Return the admin listener's socket."""
        assert self._admin is not None, "acquired or inherited before anything asks for it"
        return self._admin

    @property
    def admin_address(self) -> str:
        """Return `host:port` as bound; as configured while it is still to be handed over."""
        return bound_address(self._admin) if self._admin is not None else self._configured

    def acquire(self) -> None:
        """Take the lock, and the link in a dead control's place. Raises StoreError, LinkError."""
        self._lock = StoreLock.acquire(self.folder)
        self._link = link.listen(self.folder / LINK_NAME)

    def bind_admin(self) -> None:
        """Bind the admin address. Raises ConfigError naming it."""
        try:
            sock = bound(self._configured, reuse_port=False)
        except OSError as exc:
            raise AddressTaken("admin.address", f"{self._configured}: {exc.strerror or exc}") from exc
        sock.listen(128)
        self._admin = sock

    def inherit(self, handed: Handed) -> None:
        """Take over what the old control passed on; bind what it had none of. Raises ConfigError."""
        self._lock, self._link = handed.lock, handed.link
        self._admin = next(iter(handed.admin.values()), None)
        if self._admin is None:
            self.bind_admin()

    def release(self) -> None:
        """Give everything up for good: whoever comes next need not look for workers."""
        (self.folder / LINK_NAME).unlink(missing_ok=True)
        self._close_sockets()
        self.lock.release()

    def drop(self) -> None:
        """Close our copies: a successor has, or will find, the rest."""
        self._close_sockets()
        if self._lock is not None:
            self._lock.drop()

    def _close_sockets(self) -> None:
        for sock in (self._link, self._admin):
            if sock is not None:
                sock.close()
