"""The document says what the table says, and every reference in it leads somewhere."""

import json
import re
from collections.abc import Iterator
from typing import Any

from gateway.admin.call import BASE
from gateway.admin.openapi import document
from gateway.admin.routes import ROUTES


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_route_is_an_operation_with_its_role_and_summary() -> None:
    paths = json.loads(document())["paths"]
    for route in ROUTES:
        operation = paths[f"{BASE}/{route.path}"][route.method.lower()]
        assert operation["summary"] == route.summary
        assert route.role in operation["description"]
        assert str(route.status) in operation["responses"]
    assert sum(len(operations) for operations in paths.values()) == len(ROUTES)


def test_every_reference_leads_to_a_schema() -> None:
    made = json.loads(document())
    schemas = made["components"]["schemas"]
    for reference in references(made):
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_operation_ids_are_unique() -> None:
    actions = [route.action for route in ROUTES]
    assert len(set(actions)) == len(actions)


def test_path_parameters_are_declared() -> None:
    for path, operations in json.loads(document())["paths"].items():
        for operation in operations.values():
            declared = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_no_schema_shows_a_hash_of_a_token_or_the_machines_state() -> None:
    schemas = json.loads(document())["components"]["schemas"]
    assert "hash" not in schemas["TokenView"]["properties"]
    assert "state" not in schemas["DeploymentView"]["properties"]
