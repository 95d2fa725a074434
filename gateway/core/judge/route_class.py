"""Which kind of request an error belongs to: its method and first path segments, ids folded."""

import re
from typing import Final

MAX_CLASSES: Final = 64
"""For each version in a worker; errors of further ones are `OTHER`."""
OTHER: Final = "other"
_SEGMENTS: Final = 3
_LONGEST: Final = 32
_ID: Final = re.compile(r"\d+|[0-9a-fA-F-]{8,}|[^/]*\d[^/]*\d[^/]*\d[^/]*")
_VERSION: Final = re.compile(r"v\d{1,3}(\.\d{1,3})?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")


def route_class(method: str, path: str) -> str:
    """Return the class of a request, such as `POST /orders/:id/items`. path: with or without its query."""
    segments = [segment for segment in path.partition("?")[0].split("/") if segment][:_SEGMENTS]
    return f"{method} /{'/'.join(map(_folded, segments))}"


def _folded(segment: str) -> str:
    """Return a segment as it is, or `:id` where it looks like one of many."""
    if _VERSION.fullmatch(segment):
        return segment
    if len(segment) > _LONGEST or _ID.fullmatch(segment) or not _PLAIN.fullmatch(segment):
        return ":id"
    return segment
