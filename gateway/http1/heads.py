"""What the heads of requests and responses share: their fields, sorted by what becomes of them."""

from collections.abc import Callable
from typing import Final

from gateway.http1 import codec

Pair = tuple[bytes, bytes]
"""A field: its name as it was spelled, and its value without blanks around it."""

BLANKS: Final = b" \t"
_find: Final = codec.find


def plain_name(name: bytes) -> bytes:
    """Return the name that services in the manner of CGI take a field for: `X_Real.IP` is x-real-ip.

    All of them make `_` of a hyphen, some (lighttpd; PHP of dots) of every mark.
    """
    return name.translate(codec.PLAIN)


class Head:
    """The fields of the head that was read last."""

    __slots__ = ("block", "special")

    def __init__(self) -> None:
        self.special: dict[bytes, bytes] = {}
        """Lower-case name -> value of the fields acted on; several of a name joined with commas."""
        self.block = b""
        """The fields that are passed on, in order, as lines: `Name: value` and CRLF."""

    def pairs(self) -> list[Pair]:
        """Return the fields that are passed on."""
        parts = [line.partition(b": ") for line in self.block.split(b"\r\n")[:-1]]
        return [(name, value) for name, _, value in parts]

    def field(self, name: bytes) -> bytes | None:
        """Return the first field called `name` (lower case), or None."""
        value = self.special.get(name)
        return self.passed(name) if value is None else value

    def passed(self, name: bytes) -> bytes | None:
        """Return the first field called `name` (lower case) that is passed on as it came, or None."""
        return _find(self.block, name, False)

    def passes_on(self, name: bytes) -> bool:
        """Tell whether a field is passed on that a service may take for `name` (a plain one)."""
        return _find(self.block, name, True) is not None

    def passes_on_any(self, names: frozenset[bytes]) -> bool:
        """Tell whether a field is passed on that a service may take for one of `names` (plain ones)."""
        return any(_find(self.block, name, True) is not None for name in names)

    def drop(self, name: bytes) -> None:
        """Remove from what is passed on every field that a service may take for `name` (lower case)."""
        name = plain_name(name)
        if self.passes_on(name):
            self.block = block_of([pair for pair in self.pairs() if plain_name(pair[0]) != name])

    def sort(self, pairs: list[Pair], special: frozenset[bytes], is_kept: Callable[[bytes], bool]) -> None:
        """Take the fields of a head.

        special: lower-case names of those the gateway acts on. is_kept: whether fields of a lower-case name
        are passed on as they came.
        """
        acted_on: dict[bytes, bytes] = {}
        passed_on: list[Pair] = []
        for name, raw in pairs:
            key, value = name.lower(), raw.strip(BLANKS)
            if key in special:
                acted_on[key] = value if key not in acted_on else acted_on[key] + b", " + value
            if is_kept(key):
                passed_on.append((name, value))
        self.special, self.block = acted_on, block_of(passed_on)


def block_of(pairs: list[Pair]) -> bytes:
    """Return fields as the lines of a head."""
    return b"".join([b"%b: %b\r\n" % pair for pair in pairs])
