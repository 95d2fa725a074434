"""What the heads of requests and responses share: their fields, sorted by what becomes of them."""

from collections.abc import Callable
from typing import Final

Pair = tuple[bytes, bytes]
"""A field: its name as it was spelled, and its value without blanks around it."""

BLANKS: Final = b" \t"


def plain_name(name: bytes) -> bytes:
    """Return the name that services in the manner of CGI take a field for: `X_Real-IP` is x-real-ip."""
    return name.lower().replace(b"_", b"-")


class Head:
    """The fields of the head that was read last."""

    __slots__ = ("names", "pairs", "special")

    def __init__(self) -> None:
        self.special: dict[bytes, bytes] = {}
        """Lower-case name -> value of the fields acted on; several of a name joined with commas."""
        self.pairs: list[Pair] = []
        """The fields that are passed on, in order."""
        self.names: frozenset[bytes] = frozenset()
        """The names of those, as `plain_name` has them."""

    def passed_on(self) -> bytes:
        """Return the fields to pass on, as they came."""
        return b"".join([b"%b: %b\r\n" % pair for pair in self.pairs])

    def field(self, name: bytes) -> bytes | None:
        """Return the first field called `name` (lower case), or None."""
        if name in self.special:
            return self.special[name]
        return next((value for each, value in self.pairs if each.lower() == name), None)

    def drop(self, name: bytes) -> None:
        """Remove from what is passed on every field that a service may take for `name` (lower case)."""
        name = plain_name(name)
        if name in self.names:
            self.pairs = [pair for pair in self.pairs if plain_name(pair[0]) != name]
            self.names -= {name}

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
        self.special, self.pairs = acted_on, passed_on
        self.names = frozenset([plain_name(name) for name, _ in passed_on])

    def forget(self) -> None:
        """Give back what the last head took."""
        self.special = {}
        self.pairs = []
        self.names = frozenset()
