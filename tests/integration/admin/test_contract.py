"""The running gateway keeps the contract it publishes, whatever it is sent."""

import asyncio
import json
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.admin.openapi import document
from tests.integration.admin.gateway_process import Gateway, running

EXAMPLES = 12
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
"""Not that every valid body is accepted: whether a url may be called, and what exists, no schema can say."""
HAND_OVER = "gateway_upgrade"
"""Not called: it would replace the gateway under test; that has tests of its own."""


async def test_every_call_answers_as_the_document_says(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        await asyncio.to_thread(check_all, gateway)
        log = [
            json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")
        ]
    assert [line for line in log if line["level"] == "error"] == []


def check_all(gateway: Gateway) -> None:
    schema = schemathesis.openapi.from_dict(json.loads(document()))
    headers = {"Authorization": f"Bearer {gateway.token}", "Accept": "application/json"}
    checked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.definition.raw["operationId"] == HAND_OVER:
            continue

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=f"http://{gateway.admin}", headers=headers, checks=CHECKS)

        check()
        checked += 1
    assert checked > 30
