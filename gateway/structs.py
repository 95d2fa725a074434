"""Bases for values of compiled modules.

mypyc drops what a class statement says beside its bases (`frozen=True`, `array_like=True`): compiled, such a
struct could be changed, and was another on the wire and in the store than in plain Python. What a base says
is inherited in either form (`frozen=True` is said again for the type checker alone). This module itself is
never compiled.
"""

import msgspec


class Value(msgspec.Struct, frozen=True):
    """A value: equal if its fields are, never changed."""


class ArrayValue(msgspec.Struct, frozen=True, array_like=True):
    """A value that is written as an array of its fields."""


class SparseValue(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value whose fields are written where they differ from their defaults."""
