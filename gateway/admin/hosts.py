"""The names the admin listener answers to: a page of another name reaches nothing (DNS rebinding).

An address is nobody's name: a browser sends one as Host only to a page that was opened by it.
"""

import ipaddress
import socket
from collections.abc import Iterable, Mapping

from gateway.actions.problems import Problem


class OwnNames:
    """The names of one listener: `localhost`, this machine's, and those of `admin.hosts`."""

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._names = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}

    def check(self, fields: Mapping[str, str]) -> None:
        """Refuse a request for somebody else. fields: by lower-case name. Raises Problem 421."""
        host = host_alone(fields.get("host", ""))
        if host and host not in self._names and not _is_address(host):
            raise Problem(
                421,
                "Misdirected Request",
                f"this listener is not {host!r}; admin.hosts names what else it is",
            )


def host_alone(authority: str) -> str:
    """Return the host of a Host field: lower case, without port, brackets, or the root's dot."""
    host = authority.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
