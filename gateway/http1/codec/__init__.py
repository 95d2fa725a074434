"""The head codec: heads as most peers send them, read by one native function. Careful readers take the rest.

This room holds functions of bytes alone, `codec.c`, and what stands in for them where it could not be
compiled or GATEWAY_NO_NATIVE=1 forbids it. It must not know what a head means: hosts, framing and
connections are judged by `request` and `response`, for every head alike.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.plain import native_beside

_Said = dict[bytes, bytes]
Request = tuple[
    int, int, bytes, bytes, bytes, bytes, bytes, str | None, int, _Said, bytes, bool, bool, int, bool
]
"""Bytes it takes, fields, method, target, normal path, raw path, query with its mark, host (None: to be
judged), length of the body (-1: chunked), the fields acted on by lower-case name, the lines passed on,
whether one of these is a claim, whether the head is a usual one, the marks of the names passed on, whether
there is a usual traceparent (see `request`)."""
Response = tuple[int, int, int, bytes | None, bool, dict[bytes, bytes], bytes]
"""Bytes it takes, status, length of the body (-1: chunked, -2: until the end), connection options unless
there are none but `keep-alive`, whether a Date is passed on, the other fields acted on, the lines passed
on."""

PLAIN: Final = bytes(
    (byte | 32 if 65 <= byte <= 90 else 45 if byte in b"!#$%&'*+.^_`|~" else byte) for byte in range(256)
)
"""For `translate`: lower case, and the marks a name may hold as `-` (see `heads.plain_name`)."""


def mark_of(name: bytes) -> int:
    """Return the bit that stands for a name (see PLAIN), and for a few others; not empty."""
    plain = name.translate(PLAIN)
    return 1 << (len(plain) * 3 + plain[0] + plain[-1]) % 61


def read_request(data: bytes) -> Request | None:
    """Read a head at the start of `data`, of any size. None: it is not whole, or not in common form."""
    return None


def read_response(data: bytes) -> Response | None:
    """Read a final response's head at the start of `data`. None: it is not whole, or not in common form."""
    return None


def find_plainly(block: bytes, name: bytes, plain: bool) -> bytes | None:
    """Return the value of the first line of `block` for `name` (lower case), or None. plain: see PLAIN."""
    for line in block.split(b"\r\n")[:-1]:
        key, _, value = line.partition(b": ")
        if (key.translate(PLAIN) if plain else key.lower()) == name:
            return value
    return None


def holds_plainly(block: bytes, word: bytes) -> bool:
    """Tell whether a word is somewhere in a block."""
    return block.find(word) >= 0


_module: Final = native_beside(__name__, Path(__file__).with_name("codec.c"))
find: Callable[[bytes, bytes, bool], bytes | None] = find_plainly
holds: Callable[[bytes, bytes], bool] = holds_plainly
IS_NATIVE: Final = _module is not None
if _module is not None:
    read_request, read_response = _module.read_request, _module.read_response
    find, holds = _module.find, _module.holds
