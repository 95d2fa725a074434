"""Cookies that are meant for the gateway: taken out of what services get."""

from typing import Final

from gateway.core.settings.base import SESSION_COOKIE
from gateway.http1 import codec
from gateway.http1.heads import block_of
from gateway.http1.request import RequestReader

_SESSION: Final = SESSION_COOKIE.encode()
_COOKIE: Final = codec.mark_of(b"cookie")
_holds: Final = codec.holds


def take_session(request: RequestReader) -> None:
    """Take the admin listener's cookie out: a browser sends it to every port of the host."""
    if request.marks & _COOKIE and _holds(request.block, _SESSION):
        take_cookie(request, _SESSION)


def take_cookie(request: RequestReader, name: bytes) -> list[bytes]:
    """Take a cookie out of a request, as often as it is there. Returns its values."""
    values: list[bytes] = []
    pairs = []
    for field, value in request.pairs():
        if field.lower() != b"cookie":
            pairs.append((field, value))
            continue
        others = []
        for crumb in value.split(b";"):
            key, _, content = crumb.strip(b" \t").partition(b"=")
            if key.rstrip(b" \t") == name:
                values.append(content.strip(b' \t"'))
            else:
                others.append(crumb)
        if others:
            pairs.append((field, b";".join(others).lstrip(b" \t")))
    if values:
        request.block = block_of(pairs)
    return values
