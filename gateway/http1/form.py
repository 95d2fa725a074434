"""In which form the data plane runs: compiled, or plain Python."""

from typing import Final

from gateway.http1 import codec, server
from gateway.plain import is_compiled

FORMS: Final = ("none", "codec", "all")


def native_form() -> str:
    """Return what is compiled: `all` (the head codec and the modules around it), `codec` alone, or `none`."""
    if not codec.IS_NATIVE:
        return "none"
    return "all" if is_compiled(server) else "codec"
