"""The kinds of strings that reach the wire, one checked type each; the normal forms routes are matched in.

A pattern ends in `$` and something that takes no line break there: Python's `$` alone would let one through.
"""

import re
from functools import lru_cache
from typing import Annotated, Final
from urllib.parse import quote_from_bytes

from msgspec import Meta

from gateway.core.settings.faults import wrong

_END: Final = r"$(?!\n)"
_HOST: Final = r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_]([A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?)"


def worded(pattern: str, words: str, *, min_length: int | None = None, max_length: int | None = None) -> Meta:
    """Return what a text has to match, with nothing behind it, and what it is in words: "is not {words}"."""
    return Meta(pattern=f"{pattern}{_END}", min_length=min_length, max_length=max_length, extra={"is": words})


Token = Annotated[
    str,
    worded(
        r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}",
        "a token of HTTP: letters, digits and !#$%&'*+-.^_`|~ (256 at most)",
    ),
]
"""A method, or a field's or a cookie's name (RFC 9110 §5.6.2)."""
FieldValue = Annotated[
    str,
    worded(
        r"^([!-~]([ -~\t]*[!-~])?)?",
        "a field's value: visible ASCII, blanks only inside (8192 at most)",
        max_length=8192,
    ),
]
"""Visible ASCII with blanks inside (RFC 9110 §5.5): what every reader takes for the same."""
RequestPath = Annotated[
    str,
    worded(
        r"^/[!-\"$-\[\]-~]*",
        "a path as a request has it: it begins with /, and what is no visible ASCII is escaped",
        max_length=8192,
    ),
]
"""A path, and a query if need be, as it stands in a request: nothing in it is escaped any more."""
Host = Annotated[
    str,
    worded(f"^{_HOST}", "a host's name or address, without a port"),
]
"""A name or an address, without a port."""
Authority = Annotated[
    str,
    worded(f"^{_HOST}(:[0-9]{{1,5}})?", "a host's name or address, and a port if need be: example.com:8080"),
]
"""A host, and a port if need be: what a Host field holds."""
FilePath = Annotated[
    str,
    worded(r"^[^\x00-\x1f\x7f]+", "a file's path: no control characters (4096 at most)", max_length=4096),
]

FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "trailer", "te"})
"""Fields that say where a message ends, or belong to one connection: whoever sends the message sets them."""

_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_ADDRESS: Final = re.compile(r"\[[0-9a-f:.]{2,45}\]")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


@lru_cache(maxsize=1024)  # a worker reads the same routes again with each change of weights
def normal_route_path(path: str) -> str:
    """Return a route's path in the form requests are matched in (RFC 3986 §6.2.2). Idempotent.

    What has to be escaped is (`/café` is `/caf%C3%A9`); escapes of unreserved characters are decoded, others
    upper-cased. Raises ValueError for a path that no request's normal form has: one with a query or a
    fragment, an empty or dot segment, a malformed escape.
    """
    if not path.startswith("/"):
        raise ValueError("a path begins with /")
    if any(character in path for character in "?#\\") or any(
        ord(each) < 0x20 or each == "\x7f" for each in path
    ):
        raise ValueError("a route's path holds no query, fragment, backslash or control character")
    if "%" in _ESCAPE.sub("", path):
        raise ValueError("the path holds a malformed escape")
    escaped = quote_from_bytes(path.encode("utf-8"), safe="/%!$&'()*+,;=:@\"<>[]^`{|}")
    normal = _ESCAPE.sub(_normal_escape, escaped)
    segments = normal[1:].removesuffix("/").split("/")
    if normal != "/" and any(each in ("", ".", "..") for each in segments):
        raise ValueError("requests match without empty and dot segments, so no request would match this path")
    return normal


def _normal_escape(match: re.Match[str]) -> str:
    if match[1] == "00":
        raise ValueError("the path holds a NUL")
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else f"%{match[1].upper()}"


@lru_cache(maxsize=1024)
def normal_route_host(host: str) -> str:
    """Return a route's host in the form requests are matched in: lower case, IDNA, no root dot. Idempotent.

    host: a name, an address, `*.suffix` or `*`. Raises ValueError for what no request's host is: one with a
    port, or with characters no name has.
    """
    if host == "*":
        return host
    wild, name = ("*.", host[2:]) if host.startswith("*.") else ("", host)
    name = name.lower().removesuffix(".")
    if not wild and _ADDRESS.fullmatch(name):
        return name
    if ":" in name:
        raise ValueError("a route's host has no port")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii").lower()
        except UnicodeError as exc:
            raise ValueError("the host is no name that IDNA could write") from exc
    if not is_host_name(name):
        raise ValueError("the host is neither a name, nor *.name, nor *")
    return wild + name


def is_host_name(name: str) -> bool:
    """Return whether a host may be called so (RFC 1123 §2.1, and underscores).

    name: lower case, without the root's dot.
    """
    return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))


def normal_method(method: str) -> str:
    """Return a method as clients send it: the usual ones in capitals, others as they are (RFC 9110 §9.1)."""
    return method.upper() if method.upper() in _METHODS else method


def refuse_framing(fields: dict[str, str]) -> None:
    """Raise ValueError if one of the fields would say where the message ends."""
    for name in fields:
        if name.lower() in FRAMING:
            raise wrong("headers", f"{name} is set by the gateway itself")
