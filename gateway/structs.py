"""The base of values that compiled modules define.

mypyc drops what a class statement says beside its bases (`frozen=True`), and of a field's type what is in
brackets. What a base says is inherited in either form; `frozen=True` is said again for the type checker.
What is decoded (settings, what is sent or stored) is no such value: it stands in a module that is never
compiled, as this one.
"""

import msgspec


class Value(msgspec.Struct, frozen=True):
    """A value: equal if its fields are, never changed, never decoded."""
