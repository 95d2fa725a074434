"""The document says what the table says, and every reference in it leads somewhere."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec

from gateway.admin import docs
from gateway.admin.call import BASE
from gateway.admin.examples import EXAMPLES
from gateway.admin.openapi import document
from gateway.admin.routes import ROUTES
from tests.unit.admin import golden
from tests.unit.admin.bench import Bench


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


def operations() -> Iterator[dict[str, Any]]:
    for methods in json.loads(document())["paths"].values():
        yield from methods.values()


def test_nothing_is_left_without_a_description() -> None:
    """Of 378 properties 2 had one."""
    bare: list[str] = []
    for operation in operations():
        name = operation["operationId"]
        bare += [name] if len(operation["description"]) < 20 else []
        bare += [f"{name} {each['name']}" for each in operation["parameters"] if not each.get("description")]
        bare += [f"{name} {code}" for code, each in operation["responses"].items() if not each["description"]]
    for name, schema in json.loads(document())["components"]["schemas"].items():
        properties = schema.get("properties", {}).items()
        bare += [f"{name}.{field}" for field, given in properties if not given.get("description")]
    assert bare == []


def test_every_request_body_has_an_example_that_fits_its_schema_and_is_taken() -> None:
    made = json.loads(document())
    bodies = {route.action.replace(".", "_"): route.body for route in ROUTES}
    checked = 0
    for operation in operations():
        if "requestBody" not in operation:
            continue
        content = operation["requestBody"]["content"]["application/json"]
        schema = {**content["schema"], "components": made["components"]}
        jsonschema_rs.Draft202012Validator(schema).validate(content["example"])
        msgspec.convert(content["example"], bodies[operation["operationId"]])
        checked += bool(content["example"])
    assert checked == len(EXAMPLES) - sum(not each for each in EXAMPLES.values())
    assert set(EXAMPLES) <= {route.action for route in ROUTES}


def test_the_contract_is_the_one_that_was_agreed() -> None:
    """A change of the API is to be meant: `python -m tests.unit.admin.golden` writes it down."""
    assert golden.lines() == golden.FILE.read_text("utf-8").splitlines(), golden.HOW


def test_the_page_is_whole_without_a_network_and_runs_nothing() -> None:
    response = docs.answer(None)
    assert isinstance(response.body, bytes)
    page = response.body.decode()
    fields = dict(response.fields)
    assert "default-src 'none'" in fields["Content-Security-Policy"]
    assert "unsafe" not in fields["Content-Security-Policy"]
    assert "<script" not in page
    assert not re.search(r"""(src|href)=['"](?!#|/)""", page), "no foreign host"
    for operation in operations():
        assert f"id='{operation['operationId']}'" in page
    ids = set(re.findall(r" id='([^']+)'", page))
    assert set(re.findall(r"href='#([^']+)'", page)) <= ids, "every link leads somewhere"
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert digest in fields["Content-Security-Policy"]
    assert docs.answer(fields["ETag"]).status == 304


async def test_the_page_needs_no_token(bench: Bench) -> None:
    assert (await bench.ask("GET", "/docs", role=None)).status == 200
    assert (await bench.ask("HEAD", "/docs", role=None)).status == 200
    assert (await bench.ask("POST", "/docs", role=None)).status == 405
