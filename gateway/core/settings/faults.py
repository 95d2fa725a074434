"""What msgspec says is wrong with a value, taken apart; and field names in their two spellings."""

import re
import types
import typing
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import msgspec

_MESSAGE: Final = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<where>[^`]*)`)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]")
"""A step of msgspec's path; a key of a dictionary, which it writes as `[...]`, is left out."""
_OWN: Final = re.compile(r"((?:\.\w+|\[\d+\])+): ", re.ASCII)
"""How `wrong` begins."""
_NAMED: Final = re.compile(r"(missing required|unknown) field `([^`]*)`")


MOST_FAULTS: Final = 100
"""Named at once."""
MOST_ITEMS: Final = 1_000
"""Of one list or object looked at, once one of them is wrong."""


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


def first_fault(value: Any, kind: Any, exc: msgspec.ValidationError) -> Fault:
    """Return the first thing that is wrong with plain `value`, which `exc` was raised for, in words."""
    return next(_faults(value, kind, (), True), None) or fault_of(exc)


def faults_of(value: Any, kind: Any, *, strict: bool = True) -> list[Fault]:
    """Return everything that is wrong with plain `value` as a `kind`, field by field; nothing: it fits.

    A rule that concerns a struct as a whole is looked at once all its fields are right. strict: as of
    `msgspec.convert`.
    """
    return list(dict.fromkeys(islice(_faults(value, kind, (), strict), MOST_FAULTS)))


def _faults(value: Any, kind: Any, steps: tuple[str, ...], strict: bool) -> Iterator[Fault]:
    try:
        msgspec.convert(value, kind, strict=strict)
        return
    except msgspec.ValidationError as exc:
        whole = fault_of(exc)
    inner = _inner_faults(value, kind, steps, strict)
    first = next(inner, None)
    if first is None:
        yield Fault((*steps, *whole.steps), _in_words(kind, value) or whole.reason)
    else:
        yield from chain((first,), inner)


def _in_words(kind: Any, value: Any) -> str:
    """Return what a type asks for as people say it, if it has words of its own: `Meta(extra={"is": …})`.

    Of a dictionary that is wrong and has no wrong value: what it asks of its keys.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        given = (meta.extra or {} for meta in arguments[1:] if isinstance(meta, msgspec.Meta))
        said = next((f"is not {extra['is']}" for extra in given if "is" in extra), "")
        return said or _in_words(arguments[0], value)
    if origin in (typing.Union, types.UnionType):
        return next((said for part in arguments if (said := _in_words(part, value))), "")
    if origin is dict and isinstance(value, dict) and (said := _in_words(arguments[0], "")):
        return f"a name in it {said}"
    return ""


def _inner_faults(value: Any, kind: Any, steps: tuple[str, ...], strict: bool) -> Iterator[Fault]:
    """Yield what is wrong inside a value: of the part of a union that has its shape."""
    for option in _options(kind):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if isinstance(option, type) and issubclass(option, msgspec.Struct) and isinstance(value, dict):
            yield from _struct_faults(value, option, steps, strict)
        elif origin in (tuple, list) and isinstance(value, list):
            for index, item in enumerate(value[:MOST_ITEMS]):
                yield from _faults(item, arguments[0], (*steps, str(index)), strict)
        elif origin is dict and isinstance(value, dict):
            for item in islice(value.values(), MOST_ITEMS):  # the key may be a secret: it is left out
                yield from _faults(item, arguments[1], steps, strict)


def _struct_faults(
    value: dict[str, Any], kind: type[msgspec.Struct], steps: tuple[str, ...], strict: bool
) -> Iterator[Fault]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if kind.__struct_config__.forbid_unknown_fields:
        for name in islice((name for name in value if name not in fields), MOST_ITEMS):
            yield Fault((*steps, name), "unknown key")
    for name, field in fields.items():
        if name in value:
            yield from _faults(value[name], field.type, (*steps, name), strict)
        elif field.required:
            yield Fault((*steps, name), "is required")


def _options(kind: Any) -> Iterator[Any]:
    """Yield the parts of a union, without what is annotated to them."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from _options(typing.get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(kind):
            yield from _options(part)
    else:
        yield kind


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
