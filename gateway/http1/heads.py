"""What the heads of requests and responses share: their fields, sorted by what becomes of them.

Peers send the same names, in the same order and spelling, again and again. What follows from names alone is
worked out once, as a `Shape`. A head that its shape writes again, byte for byte, from what llhttp found in it
is in *common form*: there is nothing in it that two readers could take differently. All others are read with
care, field by field.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

Pair = tuple[bytes, bytes]
"""A field: its name as it was spelled, and its value."""

BLANKS: Final = b" \t"
MAX_COMMON_BYTES: Final = 8_192
"""Longer heads are read with care: their shapes are not worth keeping."""
MAX_COMMON_FIELDS: Final = 64
MAX_SHAPES: Final = 256
"""Kept in each direction: a few megabytes, were every peer to send the worst."""


class Lines:
    """The names of the fields of a head that are passed on as they came, in order."""

    __slots__ = ("_names", "claims", "places", "template")

    def __init__(self, names: Sequence[bytes]) -> None:
        self._names = names
        self.template = _template(names)
        """The fields as they are written, with a `%b` for each value."""
        self.places: dict[bytes, int] = {}
        """Lower-case name -> where its first value stands."""
        for place, name in enumerate(names):
            self.places.setdefault(name.lower(), place)
        self.claims = tuple(filter(_is_claim, self.places))
        """Lower-case names of those that say of a client what only a trusted proxy may say."""

    def without(self, name: bytes, values: Sequence[bytes]) -> tuple["Lines", tuple[bytes, ...]]:
        """Return what is left of names and values when every field called `name` (lower case) is dropped."""
        kept = [pair for pair in self.pairs(values) if pair[0].lower() != name]
        return Lines([each for each, _ in kept]), tuple(value for _, value in kept)

    def pairs(self, values: Sequence[bytes]) -> list[Pair]:
        """Return the fields with their values, without the blanks behind them."""
        return [(name, value.rstrip(BLANKS)) for name, value in zip(self._names, values, strict=True)]


class Shape:
    """What follows from the names of a head's fields."""

    __slots__ = ("count", "is_common", "kept", "leads_to", "lines", "special", "whole")

    def __init__(self, names: Sequence[bytes], sort: "Sort") -> None:
        keys = [name.lower() for name in names]
        kept = [place for place, key in enumerate(keys) if not sort.is_gone(key)]
        special = [(key, place) for place, key in enumerate(keys) if sort.is_special(key)]
        self.count = len(names)
        self.is_common = len(special) == len(dict(special))
        """False: a field we act on is there twice."""
        self.whole = _template(names) + b"\r\n"
        """All fields and the empty line behind them, with a `%b` for each value."""
        self.special = tuple(special)
        """(Lower-case name, place) of the fields the gateway acts on."""
        self.leads_to = len(names[0]) + 4 if names and kept == list(range(1, len(names))) else 0
        """If only the first field is not passed on: its length without its value; else 0."""
        self.kept = _picker(kept)
        """Picks, of all values, those of `lines`."""
        self.lines = Lines([names[place] for place in kept])


class Sort:
    """Which fields the gateway acts on, and which it does not pass on as they came."""

    def __init__(self, special: Sequence[str], kept: Sequence[str], is_dropped: Callable[[bytes], bool]):
        """special: those acted on; of them, `kept` are passed on all the same. is_dropped: of any others."""
        self._special = frozenset(name.lower().encode() for name in special)
        self._kept = frozenset(name.lower().encode() for name in kept)
        self._is_dropped = is_dropped
        self.is_special = self._special.__contains__
        """Of a lower-case name."""
        self.shapes = _Shapes(self)

    def is_gone(self, name: bytes) -> bool:
        """Tell whether fields called `name` (lower case) are not passed on as they came."""
        return name not in self._kept if self.is_special(name) else self._is_dropped(name)


class _Shapes(dict[tuple[bytes, ...], Shape]):
    """The shapes seen lately, by the names in order."""

    def __init__(self, sort: Sort) -> None:
        super().__init__()
        self._sort = sort

    def __missing__(self, names: tuple[bytes, ...]) -> Shape:
        shape = Shape(names, self._sort)
        if len(names) <= MAX_COMMON_FIELDS and sum(map(len, names)) <= MAX_COMMON_BYTES:
            if len(self) >= MAX_SHAPES:
                self.clear()
            self[names] = shape
        return shape


class Intake:
    """Takes what llhttp calls out, with no code of ours in between: a list's and a dict's own methods."""

    __slots__ = ("fields", "on_header", "on_status", "on_url", "starts")

    def __init__(self) -> None:
        self.starts: list[bytes] = []
        """Of the start line: the request's target, or the response's reason phrase."""
        self.fields: dict[bytes, bytes] = {}
        """Name -> its first value, in the order they came. A repeated one shows in that the shape cannot
        write the head again."""
        self.on_url = self.on_status = self.starts.append
        self.on_header = self.fields.setdefault


class Head:
    """The fields of the head that was read last."""

    __slots__ = ("_block", "_pairs", "lines", "special", "values")

    def __init__(self) -> None:
        self.special: dict[bytes, bytes] = {}
        """Lower-case name -> value of the fields acted on; several of a name joined with commas."""
        self.lines = NO_LINES
        """The names of those passed on, and"""
        self.values: tuple[bytes, ...] = ()
        """their values."""
        self._block = b""
        """Both, as they are written; empty: to be made."""
        self._pairs = NO_PAIRS
        """While a head is read with care: its fields so far."""

    def passed_on(self) -> bytes:
        """Return the fields to pass on, as they came."""
        return self._block or self.lines.template % self.values

    def field(self, name: bytes) -> bytes | None:
        """Return the first field called `name` (lower case), or None."""
        place = self.lines.places.get(name)
        return self.special.get(name) if place is None else self.values[place].rstrip(BLANKS)

    def pairs(self) -> list[Pair]:
        """Return the fields that are passed on."""
        return self.lines.pairs(self.values)

    def drop(self, name: bytes) -> None:
        """Remove every field called `name` (lower case) from what is passed on."""
        if name in self.lines.places:
            self._block = b""
            self.lines, self.values = self.lines.without(name, self.values)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field from llhttp while a head is read with care."""
        self._pairs.append((name, value))

    def _hold(self, shape: Shape, values: tuple[bytes, ...]) -> bool:
        """Take the fields of a head in common form. False: a blank behind a value we act on, so it is not."""
        special = self.special
        special.clear()
        for name, place in shape.special:
            special[name] = value = values[place]
            if value[-1:] in _BLANK:
                return False
        self.lines, self.values = shape.lines, shape.kept(values)
        self._block = b""
        return True

    def _arrange(self, sort: Sort) -> int:
        """Sort the fields of a head that was read with care. Returns how many there were."""
        pairs, self._pairs = self._pairs, NO_PAIRS
        names, values = zip(*pairs, strict=True) if pairs else ((), ())
        shape = sort.shapes[names]
        special = self.special
        special.clear()
        for key, place in shape.special:
            value = values[place].rstrip(BLANKS)
            special[key] = value if key not in special else special[key] + b", " + value
        self.lines, self.values = shape.lines, shape.kept(values)
        self._block = b""
        return shape.count


def _is_claim(name: bytes) -> bool:
    """Tell whether a field, or what a service in the manner of CGI takes for it, speaks for a proxy."""
    plain = name.replace(b"_", b"-")
    return plain.startswith(b"x-forwarded-") or plain == b"x-real-ip"


def _template(names: Sequence[bytes]) -> bytes:
    return b"".join(name.replace(b"%", b"%%") + b": %b\r\n" for name in names)


def _picker(places: Sequence[int]) -> Callable[[Any], Any]:
    """Return what picks the values at `places` out of a tuple, as a tuple."""
    if not places:
        return itemgetter(slice(0, 0))
    if list(places) == list(range(places[0], places[-1] + 1)):
        return itemgetter(slice(places[0], places[-1] + 1))
    return itemgetter(*places)


_BLANK: Final = (b" ", b"\t")
NO_LINES: Final = Lines(())
NO_PAIRS: Final[list[Pair]] = []
