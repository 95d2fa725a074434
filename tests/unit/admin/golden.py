"""The API's shape in lines that a diff shows well: calls, parameters, fields with their types."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gateway.admin.openapi import document

FILE: Final = Path(__file__).with_name("api.golden")
HOW: Final = (
    "the API has changed: if that is meant, run python -m tests.unit.admin.golden and look at the diff"
)
WORDS: Final = ("description", "title", "example", "default")


def lines() -> list[str]:
    """Return the document as lines."""
    return list(_lines(json.loads(document())))


def _lines(made: dict[str, Any]) -> Iterator[str]:
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            role = operation["description"].partition("role ")[2].partition(" ")[0]
            codes = [code for code in operation["responses"] if code < "300"]
            yield f"{method.upper()} {path} {operation['operationId']} {role} {','.join(codes)}"
            for each in operation["parameters"]:
                yield f"  {each['in']} {each['name']} {_plain(each['schema'])}"
            content = operation.get("requestBody", {}).get("content", {})
            yield from (f"  body {_plain(each['schema'])}" for each in content.values())
            for code in codes:
                answers = operation["responses"][code].get("content", {})
                yield from (f"  {code} {kind} {_plain(each['schema'])}" for kind, each in answers.items())
    for name, schema in made["components"]["schemas"].items():
        for field, given in schema.get("properties", {}).items():
            needed = "!" if field in schema.get("required", ()) else ""
            yield f"{name}.{field}{needed} {_plain(given)}"


def _plain(schema: dict[str, Any]) -> str:
    return json.dumps(_bare(schema), sort_keys=True)


def _bare(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _bare(value) for key, value in node.items() if key not in WORDS}
    return [_bare(each) for each in node] if isinstance(node, list) else node


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", "utf-8")
