"""What the OpenAPI document says of every property: the words that stand beside it in the code.

A field's own docstring comes first, that of the struct it is copied from second, and third what a name means
wherever it stands: an `id` is an `id`. A test holds that none is left without.
"""

import ast
import inspect
import sys
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import msgspec

from gateway.actions.bodies import RolloutFields
from gateway.admin.words import WORDS
from gateway.core.rollout.plan import RolloutSettings
from gateway.core.settings.faults import camel

SAME_FIELDS: Final[dict[type, type]] = {RolloutFields: RolloutSettings}
"""Structs whose fields are another's, each optional."""


def structs_in(kinds: typing.Iterable[Any]) -> dict[str, type[msgspec.Struct]]:
    """Return every struct that types are made of, by the name it has in the document."""
    found: dict[str, type[msgspec.Struct]] = {}
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        origin = typing.get_origin(kind)
        bare = origin if isinstance(origin, type) and issubclass(origin, msgspec.Struct) else kind
        waiting += typing.get_args(kind)
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            name = bare.__name__ if bare is kind else _generic_name(kind)
            if name not in found:
                found[name] = bare
                waiting += [field.type for field in msgspec.structs.fields(bare)]
    return found


def _generic_name(kind: Any) -> str:
    """Return what msgspec calls `Listing[EventView]`."""
    inner = "_".join(argument.__name__ for argument in typing.get_args(kind))
    return f"{typing.get_origin(kind).__name__}_{inner}_"


def describe(schema: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    """Put a description beside every property of a struct's schema that has one in the code."""
    words = dict(_words_of(kind))
    for name, given in schema.get("properties", {}).items():
        text = words.get(name) or WORDS.get(f"{kind.__name__}.{name}") or WORDS.get(name)
        if text is not None:
            given.setdefault("description", text)


def _words_of(kind: type) -> Iterator[tuple[str, str]]:
    """Yield (name in JSON, docstring) of a struct's fields, the bases' first."""
    for base in reversed(kind.__mro__):
        if base in SAME_FIELDS:
            yield from _words_of(SAME_FIELDS[base])
        if base.__module__.startswith("gateway."):
            yield from _docstrings(base.__module__).get(base.__name__, {}).items()


@cache
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """Return class -> field -> the string below it, of a module's source; nothing without source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:
        return {}
    return {node.name: dict(_fields(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield camel(field.target.id), " ".join(str(below.value.value).split())
