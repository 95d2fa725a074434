"""Requests that come round again: cut by the CDN-Loop field (RFC 8586).

The gateway writes `ID; s=SERVICE` into what it forwards. To pass it twice on the way to two services is legal
(gateway, a front end's back end, gateway, an API); to pass it twice for one service never ends.
"""

import re
from typing import Final

MAX_PASSES: Final = 8
"""How often a request may pass this gateway: legal chains are shorter."""
_QUOTED: Final = rb'"(?:\\.|[^"\\])*"'
_MEMBER: Final = re.compile(rb'(?:[^,"]|%b)+' % _QUOTED)
_WELL_QUOTED: Final = re.compile(rb'(?:[^"]|%b)*' % _QUOTED)


def entry(gateway: bytes, service: str) -> bytes:
    """Return what this gateway adds for a service. gateway: its id, a token."""
    return b"%b; s=%b" % (gateway, service.encode())


def is_loop(field: bytes, gateway: bytes, service: str) -> bool:
    """Tell whether a request has been here for this service, or too often at all.

    field: its CDN-Loop. gateway: our id; empty: we have none, and nothing is a loop.
    """
    passes = 0
    for member in _members(field) if gateway else ():
        cdn, *parameters = (part.strip(b" \t") for part in member.split(b";"))
        if cdn != gateway:
            continue
        passes += 1
        if any(_is_service(parameter, service.encode()) for parameter in parameters):
            return True
    return passes >= MAX_PASSES


def _members(field: bytes) -> list[bytes]:
    """Return the members of a list. A quote that is never closed hides nothing: a client may have sent it."""
    members: list[bytes] = _MEMBER.findall(field) if _WELL_QUOTED.fullmatch(field) else field.split(b",")
    return members


def _is_service(parameter: bytes, service: bytes) -> bool:
    name, _, value = parameter.partition(b"=")
    return name.strip(b" \t") == b"s" and value.strip(b' \t"') == service
