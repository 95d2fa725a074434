"""What msgspec says is wrong with a value, taken apart; and field names in their two spellings."""

import re
from typing import Final, NamedTuple

import msgspec

_MESSAGE: Final = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<where>[^`]*)`)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]")
"""A step of msgspec's path; a key of a dictionary, which it writes as `[...]`, is left out."""
_OWN: Final = re.compile(r"((?:\.\w+|\[\d+\])+): ", re.ASCII)
"""How `wrong` begins."""
_NAMED: Final = re.compile(r"(missing required|unknown) field `([^`]*)`")


class Fault(NamedTuple):
    """One thing that is wrong. steps: where, from the outside in, list indexes in digits."""

    steps: tuple[str, ...]
    reason: str


def fault_of(exc: msgspec.ValidationError) -> Fault:
    """Return where a value does not fit its type, and why: of several the first."""
    match = _MESSAGE.match(str(exc))
    assert match is not None, "the pattern takes any text"
    steps = [name or index for name, index in _STEP.findall(match["where"] or "")]
    reason = match["what"]
    if own := _OWN.match(reason):
        steps += [camel(name) if name else index for name, index in _STEP.findall(own[1])]
        reason = reason[own.end() :]
    elif named := _NAMED.search(reason):
        steps.append(named[2])
        reason = "is required" if named[1] == "missing required" else "unknown key"
    return Fault(tuple(steps), reason)


def wrong(field: str, reason: str) -> ValueError:
    """Return what a struct raises for a wrong field. field: its name; `allow_from[0]`: a part of it."""
    return ValueError(f".{field}: {reason}")


def pointer_step(name: str) -> str:
    """Return a name as a step of a JSON pointer (RFC 6901 §3)."""
    return name.replace("~", "~0").replace("/", "~1")


def camel(name: str) -> str:
    """Return a field's name as JSON has it: camelCase."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def snake(name: str) -> str:
    """Return a field's name, or a path of them, as the configuration file has it: snake_case."""
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[0-9])(?=[A-Z])", "_", name).lower()
