"""A request's body and query as checked structs; what is wrong with them as a Problem."""

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from gateway.actions import bodies
from gateway.actions.problems import FieldError, Problem, invalid_all, malformed
from gateway.core.settings.base import Settings
from gateway.core.settings.faults import fault_of, faults_of

T = TypeVar("T")


class NoBody(Settings):
    """The body of a call that takes none: nothing, or `{}`."""


def decode_body(fields: Mapping[str, str], body: bytes, kind: type[T]) -> T:
    """Return the JSON body as `kind`; an empty body is `{}`.

    fields: header fields by lower-case name. Raises Problem: 415 for another media type, 400 for what is not
    JSON, 422 for JSON that is not a `kind`.
    """
    require_json(fields, body)
    try:
        return bodies.parse(kind, body)
    except RecursionError as exc:
        raise malformed("the body is nested too deeply") from exc


def require_json(fields: Mapping[str, str], body: bytes) -> None:
    """Raise Problem 415 for a body that says it is something else than JSON, or that is compressed.

    A compressed one may be a thousand times as long: nobody needs that here.
    """
    coding = fields.get("content-encoding", "identity").strip().lower()
    if body and coding not in ("", "identity"):
        raise Problem(415, "Unsupported Media Type", f"send the body as it is, not {coding}-encoded")
    media = fields.get("content-type", "application/json").partition(";")[0].strip().lower()
    if body and media != "application/json" and not media.endswith("+json"):
        raise Problem(415, "Unsupported Media Type", f"send Content-Type: application/json, not {media}")


def decode_query(query: str, kind: type[T]) -> T:
    """Return the query as `kind`. Raises Problem 422 naming every bad parameter, and one that is given twice:
    whoever read the query before us may have gone by the other.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=50, errors="strict")
    except ValueError as exc:
        raise malformed(f"the query cannot be read: {exc}") from exc
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        raise invalid_all([FieldError(f"?{name}", "is given more than once") for name in repeated])
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as exc:
        faults = faults_of(values, kind, strict=False) or [fault_of(exc)]
        errors = [FieldError("?" + "".join(fault.steps[:1]), fault.reason) for fault in faults]
        raise invalid_all(errors) from exc
