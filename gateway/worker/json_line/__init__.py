"""A usual line of the access log, written by one native function; `log_line` writes the others with care.

This room holds `json_line.c`, and what stands in for it where it could not be compiled or GATEWAY_NO_NATIVE=1
forbids it. It knows the fields of a line and their order, and nothing of where they come from.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.plain import native_beside


def append_none(_buffer: bytearray, *_values: object) -> bool:
    """Add a line of values in the order that `native.pyi` has. False: it is to be written with care."""
    return False


_module: Final = native_beside(__name__, Path(__file__).with_name("json_line.c"))
IS_NATIVE: Final = _module is not None
append: Callable[..., bool] = append_none if _module is None else _module.append
