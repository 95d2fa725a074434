"""The OpenAPI 3.1 document, made from the route table and the structs: it cannot disagree with either."""

import functools
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gateway import __version__
from gateway.admin.call import BASE, NoQuery, Route
from gateway.admin.descriptions import describe, structs_in
from gateway.admin.examples import EXAMPLES
from gateway.admin.routes import EVENTS, ROUTES
from gateway.admin.schemas import KeptView, ProblemView
from gateway.core.settings.base import SESSION_COOKIE, Settings

REF: Final = "#/components/schemas/{name}"
FIELDS: Final = {
    "deployment.start": ("Idempotency-Key",),
    "token.create": ("Idempotency-Key",),
    "token.rotate": ("Idempotency-Key",),
    "event.list": ("Last-Event-ID",),
}
"""Header fields that one call alone looks at."""
PARAMETERS: Final = {
    "id": "Its id.",
    "name": "The service's name.",
    "after": "The `next` cursor of the piece before; of events an id: what came after it.",
    "limit": "How many at most.",
    "serviceName": "Only of this service.",
    "status": "Only in this status.",
    "state": "Only in this state.",
    "since": "Only what began from then on (RFC 3339).",
    "hour": "With what was answered in each of the last sixty minutes.",
    "actor": "Only what this token did.",
    "action": "Only this action: `deployment.start`.",
    "Idempotency-Key": "The same key and body again is the same call, and not a second one.",
    "If-Match": "The ETag of what is to be changed: 412 if it has changed since.",
    "Last-Event-ID": "Id of the last event that was seen: the stream goes on behind it.",
}
"""What parameters mean, wherever they stand."""
REFUSALS: Final = {
    "400": "The body is not JSON, or the query cannot be read.",
    "401": "No token, or one that is not known.",
    "403": "The token's role may not do this.",
    "404": "There is no such thing.",
    "409": "The present state does not allow it.",
    "412": "It has changed since it was read (If-Match).",
    "413": "The body is longer than 1 MiB.",
    "414": "The target is longer than 8 KiB.",
    "415": "The body is not application/json.",
    "421": "The Host field names another listener; `admin.hosts` says what this one is called.",
    "422": "A field is wrong; `errors` says which.",
    "429": "Too often; Retry-After says when again.",
    "503": "Another process is taking over, and nothing was done; Retry-After says when again.",
}
"""What any call may answer instead of what it should."""


@functools.cache
def document() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(build(ROUTES))


def build(routes: tuple[Route, ...]) -> dict[str, Any]:
    """Return the document of a route table."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(f"{BASE}/{route.path}", {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gateway admin API",
            "version": __version__,
            "description": "Versions, rollouts, the gateway itself. Times are UTC, durations milliseconds.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


HELD: Final = frozenset(
    {
        "deployment.start",
        "deployment.traffic",
        "deployment.promote",
        "deployment.resume",
        "version.create",
        "version.patch",
        "version.drain",
        "service.delete",
        "service.undo",
    }
)
"""Calls that may wait for a second person, where the configuration says so."""
MATCHED: Final = frozenset(
    {
        "deployment.traffic",
        "deployment.promote",
        "deployment.resume",
        "deployment.complete",
        "version.patch",
        "version.delete",
        "service.patch",
        "service.delete",
    }
)
"""Calls that look at If-Match."""
AT_ONCE: Final = frozenset({"deployment.rollback", "deployment.pause", "service.undo"})
"""Orders that do not wait for a store that fails."""


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.action.replace(".", "_"),
        "summary": route.summary,
        "description": _description(route),
        "tags": [route.path.partition("/")[0]],
        "parameters": [*_path_parameters(route.path), *_query_parameters(route.query), *_fields(route)],
        "responses": {str(route.status): _answer(route), **_early(route), **_refusals()},
    }
    if route.is_change and route.method != "DELETE":
        operation["requestBody"] = {
            "required": bool(_required(route.body)),
            "description": _about(route.body),
            "content": {
                "application/json": {
                    "schema": _ref(route.body),
                    "example": EXAMPLES.get(route.action, {}),
                }
            },
        }
    return operation


def _description(route: Route) -> str:
    """Return what a call does, who may make it, and when it waits."""
    text = f"{route.summary}. Needs the role {route.role} or a higher one."
    if route.action in AT_ONCE:
        text += " Is carried out at once, also where the store fails, and is never refused for a freeze."
    if route.action in HELD:
        text += " With `admin.second_person` it may wait until a second person has confirmed it (202)."
    return text


def _about(body: Any) -> str:
    """Return what a struct says of itself, in one line."""
    text = getattr(body, "__doc__", None) if isinstance(body, type) and body is not dict else None
    return " ".join(text.split()) if text else "A JSON merge patch (RFC 7396): null takes a setting back."


def _answer(route: Route) -> dict[str, Any]:
    if route.answer is None:
        return {"description": "Done."}
    if route.answer is bytes:
        binary = {"schema": {"type": "string", "contentMediaType": "application/vnd.sqlite3"}}
        return {"description": "Done.", "content": {"application/vnd.sqlite3": binary}}
    content: dict[str, Any] = {"application/json": {"schema": _ref(route.answer)}}
    if route is EVENTS:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    answer: dict[str, Any] = {"description": "Done.", "content": content}
    if route.status == 201:
        answer["headers"] = {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}
    return answer


def _early(route: Route) -> dict[str, Any]:
    """Return the answer to an order that is carried out before it is stored, or has to wait for somebody."""
    texts, kinds = [], []
    if route.action in AT_ONCE:
        texts.append("In force, and not stored yet (`stored` is false).")
        kinds.append(_ref(route.answer))
    if route.action in HELD:
        texts.append("Not done yet: a second person has to confirm it (`approvalId`).")
        kinds.append(_ref(KeptView))
    if not kinds:
        return {}
    schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return {"202": {"description": " ".join(texts), "content": {"application/json": {"schema": schema}}}}


def _refusals() -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _ref(ProblemView)}}
    return {code: {"description": text, "content": content} for code, text in REFUSALS.items()}


def _path_parameters(template: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "description": PARAMETERS[name],
            "required": True,
            "schema": {"type": "string", "minLength": 1},
        }
        for name in re.findall(r"\{(\w+)\}", template)
    ]


def _query_parameters(query: type[Settings]) -> list[dict[str, Any]]:
    if query is NoQuery:
        return []
    _, components = _components((query,))
    properties = components[query.__name__]["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "description": PARAMETERS[name],
            "required": False,
            "schema": _given(schema),
        }
        for name, schema in properties.items()
    ]


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema without null, which a query cannot say."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    return (
        options[0] if len(options) == 1 else {key: value for key, value in schema.items() if key != "default"}
    )


def _fields(route: Route) -> list[dict[str, Any]]:
    """Return the header fields a call looks at."""
    names = list(FIELDS.get(route.action, ()))
    if route.action in MATCHED:
        names.append("If-Match")
    return [
        {
            "name": name,
            "in": "header",
            "description": PARAMETERS[name],
            "required": False,
            "schema": {"type": "string", "minLength": 1},
        }
        for name in names
    ]


def _schemas(routes: tuple[Route, ...]) -> dict[str, Any]:
    kinds = {
        ProblemView,
        KeptView,
        *(route.body for route in routes),
        *(route.answer for route in routes if route.answer not in (None, bytes)),
    }
    _, components = _components(kinds)
    structs = structs_in(kinds)
    for name, schema in components.items():
        describe(schema, structs[name])
    return {name: components[name] for name in sorted(components)}


def _ref(kind: Any) -> dict[str, Any]:
    (schema,), _ = _components((kind,))
    return schema


def _components(kinds: Iterable[Any]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """Return (a schema each, the components they refer to). `object` is any JSON."""
    return msgspec.json.schema_components(kinds, ref_template=REF, schema_hook=_any_json)


def _required(body: Any) -> tuple[str, ...]:
    """Return the names of a body's fields that have no default; a merge patch (RFC 7396) has none."""
    if not (isinstance(body, type) and issubclass(body, Settings)):
        return ()
    return tuple(field.name for field in msgspec.structs.fields(body) if field.required)


def _any_json(_: type) -> dict[str, Any]:
    return {"description": "Any JSON value."}
