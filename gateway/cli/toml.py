"""Write TOML: the few kinds of values settings are made of."""

import re
from typing import Any, Final

import msgspec

_BARE: Final = re.compile(r"^[A-Za-z0-9_-]+$")


def value(item: Any) -> str:
    """Return a value in one line; tables inline. What has no value (None) is left out of tables."""
    if isinstance(item, dict):
        inside = ", ".join(f"{key(name)} = {value(each)}" for name, each in item.items() if each is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(item, list | tuple):
        return f"[{', '.join(value(each) for each in item)}]"
    if isinstance(item, str):
        # A basic string has JSON's escapes; DEL alone has to be escaped besides.
        return msgspec.json.encode(item).decode().replace("\x7f", "\\u007f")
    if isinstance(item, bool):
        return "true" if item else "false"
    return repr(item)


def key(name: str) -> str:
    """Return a key, quoted if it has to be."""
    return name if _BARE.match(name) else value(name)


def table(header: str, entries: dict[str, Any]) -> str:
    """Return a table: its header, a line for each entry."""
    lines = [f"{key(name)} = {value(each)}" for name, each in entries.items() if each is not None]
    return "\n".join([header, *lines])
