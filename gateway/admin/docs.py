"""The API's description as a page: `/openapi.json` for people, made on the server.

One document without a script, an image or another host, so that it is read where there is no network, and a
policy that allows nothing but its own style.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any, Final

from gateway.admin import openapi
from gateway.http1.app import Response

STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --mark: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: var(--mark); overflow-x: auto; padding: .6rem; }
details { border-top: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; }
summary code { overflow-wrap: anywhere; }
summary b { display: inline-block; min-width: 4.5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top; }
nav a { margin-right: .8rem; }
"""
DIGEST: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
REF: Final = "#/components/schemas/"


def answer(if_none_match: str | None) -> Response:
    """Return the page, or 304 if the client has it."""
    body, tag = _page()
    fields = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("ETag", tag),
        ("Cache-Control", "no-cache"),
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    ]
    if if_none_match is not None and tag in if_none_match:
        return Response(304, fields)
    return Response(200, fields, body)


@cache
def _page() -> tuple[bytes, str]:
    body = "".join(render(json.loads(openapi.document()))).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:20]}"'


def render(document: dict[str, Any]) -> Iterator[str]:
    """Yield the page of a document."""
    info, schemas = document["info"], document["components"]["schemas"]
    yield "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    yield f"<title>{escape(info['title'])}</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])} "
    yield "<a href='/openapi.json'>openapi.json</a> · <a href='/'>dashboard</a></p>"
    tags = _by_tag(document["paths"])
    yield "<nav>" + "".join(f"<a href='#{escape(tag)}'>{escape(tag)}</a>" for tag in tags)
    yield "<a href='#records'>records</a></nav><main>"
    for tag, operations in tags.items():
        yield f"<h2 id='{escape(tag)}'>{escape(tag)}</h2>"
        for method, path, operation in operations:
            yield from _operation(method, path, operation)
    yield "<h2 id='records'>records</h2>"
    for name, schema in schemas.items():
        yield from _record(name, schema)
    yield "</main></body></html>\n"


def _by_tag(paths: dict[str, Any]) -> dict[str, list[tuple[str, str, Any]]]:
    tags: dict[str, list[tuple[str, str, Any]]] = {}
    for path, operations in paths.items():
        for method, operation in operations.items():
            tags.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return tags


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    head = f"<b>{method}</b> <code>{escape(path)}</code> {escape(operation['summary'])}"
    yield f"<details id='{escape(operation['operationId'])}'><summary>{head}</summary>"
    yield f"<p>{escape(operation['description'])}</p>"
    if operation["parameters"]:
        rows = ((each["name"], each["in"], each["description"]) for each in operation["parameters"])
        yield _table(("parameter", "in", "means"), rows)
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        example = json.dumps(content["example"], indent=2, ensure_ascii=False)
        yield f"<p>Body: {_type(content['schema'])}</p><pre>{escape(example)}</pre>"
    yield "<table><tr><th>answer</th><th>means</th></tr>"
    for status, response in operation["responses"].items():
        kinds = (each["schema"] for each in response.get("content", {}).values())
        shown = " or ".join(_type(kind) for kind in kinds)
        yield f"<tr><td>{escape(status)}</td><td>{escape(response['description'])} {shown}</td></tr>"
    yield "</table></details>"


def _record(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"<details id='{escape(name)}'><summary><code>{escape(name)}</code> "
    yield f"{escape(schema.get('description', ''))}</summary>"
    yield "<table><tr><th>field</th><th>type</th><th>means</th></tr>"
    for field, given in schema.get("properties", {}).items():
        needed = " (required)" if field in schema.get("required", ()) else ""
        about = escape(given.get("description", ""))
        yield f"<tr><td><code>{escape(field)}</code>{needed}</td><td>{_type(given)}</td><td>{about}</td></tr>"
    yield "</table></details>"


def _table(heads: tuple[str, ...], rows: Any) -> str:
    lines = [heads, *rows]
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in line) for line in lines)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table>"


def _type(schema: dict[str, Any]) -> str:
    """Return a schema's type as one reads it, records as links."""
    if "$ref" in schema:
        name = escape(schema["$ref"].removeprefix(REF))
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"<code>{escape(json.dumps(each))}</code>" for each in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}) or {})}" if schema.get("items") else "list"
    limits = {name: schema[name] for name in LIMITS if name in schema}
    shown = ", ".join(f"{name} {value}" for name, value in limits.items())
    return escape(str(schema.get("format", kind)) + (f" ({shown})" if shown else ""))


LIMITS: Final = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
)
