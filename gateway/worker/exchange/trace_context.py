"""Trace context: which trace a request belongs to, as fields say it (https://www.w3.org/TR/trace-context/).

Functions of bytes alone. What is malformed counts as not said: the trace begins here then.
"""

import re
from typing import Final

from gateway.http1.message import members_of

MAX_MEMBERS: Final = 32
"""Of a tracestate (§3.3.1.1); one with more is dropped."""
MAX_STATE_BYTES: Final = 512
"""Of a tracestate that is passed on: all that everybody must be able to take (§3.3.1.5)."""
LONG_MEMBER_BYTES: Final = 128
"""Members longer than this go first when there is too much."""

_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_ODD: Final = frozenset(b"13579bdf")
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_MEMBER: Final = re.compile(
    rb"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
"""`key=value` (§3.3.1.3): a key of one vendor, or of a tenant at a vendor's system."""


def parsed_parent(value: bytes) -> tuple[bytes, bytes, bool] | None:
    """Return (trace id, parent's span id, whether it is sampled) of a traceparent; None: it is malformed.

    A version that is not known yet is read as far as it is like version 00 (§4.3).
    """
    match = _PARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return trace_id, span_id, bool(int(flags, 16) & 1)


def usual_parent(value: bytes) -> tuple[bytes, bytes, bool] | None:
    """Return the same of a traceparent that is known to have the form of version 00."""
    trace_id, span_id = value[3:35], value[36:52]
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return trace_id, span_id, value[54] in _ODD


def sound_state(value: bytes) -> bytes:
    """Return a tracestate as it may be passed on; empty: it is malformed, or says nothing.

    Its newest members stand first: of one that is too long the last ones go.
    """
    members = members_of(value)
    if len(members) > MAX_MEMBERS or any(_MEMBER.fullmatch(each) is None for each in members):
        return b""
    if _size(members) > MAX_STATE_BYTES:
        members = [each for each in members if len(each) <= LONG_MEMBER_BYTES]
    while _size(members) > MAX_STATE_BYTES:
        members.pop()
    return b",".join(members)


def _size(members: list[bytes]) -> int:
    return sum(len(each) + 1 for each in members) - 1
