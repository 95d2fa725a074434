"""The running gateway keeps the contract it publishes, whether it is sent what fits or what does not."""

import asyncio
import json
from pathlib import Path
from typing import Final

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi import checks as openapi_checks

from gateway.admin.openapi import document
from tests.effort import effort
from tests.integration.admin.gateway_process import Gateway, running, sample

EXAMPLES: Final = effort(3, 6)
HAND_OVER: Final = "gateway_upgrade"
"""Not called: it would replace the gateway under test; that has tests of its own."""
PATIENCE_S: Final = 120
"""Of one call: it may ask for smoke tests that each fail seven times."""
LEFT_OUT: Final = {
    "positive_data_acceptance": "whether a url may be called, and what exists, no schema can say",
    "use_after_free": "speaks only of calls that follow each other, and here each stands alone",
    "ensure_resource_availability": "likewise; tests/integration/rollouts/test_outcomes.py makes and shows",
}
REFUSED: Final = [400, 401, 403, 404, 405, 406, 409, 412, 413, 414, 415, 422, 428, 429, 431, "5xx"]
"""What data that does not fit may be answered; that no answer is a 5xx, another check says."""
CONFIG: Final = {"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
MANY_LOGINS: Final = "failed_logins_per_15_minutes = 100000"
"""`ignored_auth` tries each call with a wrong token."""


class Known(msgspec.Struct):
    """What there is in the gateway under test, so that calls have something to work on."""

    service: str
    version: str
    deployment: str
    token: str

    def parameters(self, path: str) -> dict[str, str]:
        """Return a path's parameters such that it leads to something there is."""
        kinds = (
            ("/services/", self.service),
            ("/versions/", self.version),
            ("/tokens/", self.token),
            ("/deployment/", self.deployment),
        )
        found = next((name for part, name in kinds if f"{part}{{" in path), "")
        return {"name" if "{name}" in path else "id": found} if found else {}


def test_all_checks_are_made_but_those_left_out() -> None:
    names = set(CHECKS.get_all_names())
    assert openapi_checks.ignored_auth.__name__ in names, "they register themselves when imported"
    assert LEFT_OUT.keys() < names
    assert len(names - LEFT_OUT.keys()) >= 11


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
async def test_every_call_answers_as_the_document_says(tmp_path: Path, mode: GenerationMode) -> None:
    async with sample("v1") as url, running(tmp_path, logins=MANY_LOGINS) as gateway:
        known = await asyncio.to_thread(furnished, gateway, url)
        checked = await asyncio.to_thread(check_all, gateway, mode, known)
        log = [
            json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")
        ]
    assert checked > (30 if mode is GenerationMode.POSITIVE else 15)
    assert [line for line in log if line["level"] == "error"] == []


def furnished(gateway: Gateway, url: str) -> Known:
    """Make one of each thing there is."""
    api = gateway.api
    api.post("services", {"name": "auth", "routes": [{"host": "*", "path": "/"}]})
    first = {"serviceName": "auth", "version": "v1", "url": url}
    api.post("deployment/versions", first)
    second = api.post("deployment/versions", {**first, "version": "v2"})
    token = api.post("tokens", {"name": "other", "role": "viewer"})
    start = {"serviceName": "auth", "fromVersion": "v1", "toVersion": "v2"}
    deployment = api.post("deployment/start", start)
    return Known(service="auth", version=second["id"], deployment=deployment["id"], token=token["id"])


def check_all(gateway: Gateway, mode: GenerationMode, known: Known) -> int:
    """Send each call what `mode` makes up, deletions last. Returns how many had any."""
    config = SchemathesisConfig.from_dict(CONFIG)
    schema = schemathesis.openapi.from_dict(json.loads(document()), config=config)
    operations = [result.ok() for result in schema.get_all_operations()]
    chosen = [each for each in operations if is_checked(each, mode)]
    for operation in sorted(chosen, key=lambda each: each.method.upper() == "DELETE"):
        check_one(gateway, operation, mode, known.parameters(operation.path))
    return len(chosen)


def is_checked(operation: APIOperation, mode: GenerationMode) -> bool:
    """Return whether an operation is called: for wrong data, whether there is anything to get wrong."""
    raw = operation.definition.raw
    has_data = bool(raw["parameters"] or "requestBody" in raw)
    return raw["operationId"] != HAND_OVER and (has_data or mode is GenerationMode.POSITIVE)


def check_one(
    gateway: Gateway, operation: APIOperation, mode: GenerationMode, parameters: dict[str, str]
) -> None:
    """Send one call its examples; those that fit also to what there is: `parameters`."""
    headers = {"Authorization": f"Bearer {gateway.token}", "Accept": "application/json"}
    checks = CHECKS.get_by_names([name for name in CHECKS.get_all_names() if name not in LEFT_OUT])

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(
            base_url=f"http://{gateway.admin}", headers=headers, checks=checks, timeout=PATIENCE_S
        )
        if parameters and mode is GenerationMode.POSITIVE:
            case.path_parameters = parameters
            case.call_and_validate(
                base_url=f"http://{gateway.admin}", headers=headers, checks=checks, timeout=PATIENCE_S
            )

    check()
