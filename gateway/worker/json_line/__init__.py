"""A usual line of the access log, written by one native function; `log_line` writes the others with care.

This room holds `json_line.c`, and what stands in for it where it could not be compiled or GATEWAY_NO_NATIVE=1
forbids it. It knows the fields of a line and their order, and nothing of where they come from.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.plain import native_beside


def write_none(_buffer: bytearray, at: int, *_values: object) -> int:
    """Write a line of values in the order that `native.pyi` has into `_buffer`, from `at` on.

    Returns the place behind it; `at`: nothing is written, it is to be done with care.
    """
    return at


_module: Final = native_beside(__name__, Path(__file__).with_name("json_line.c"))
IS_NATIVE: Final = _module is not None
write: Callable[..., int] = write_none if _module is None else _module.write
