"""From a request to its answer: login, table, allowance, role, parse, handle, encode."""

import json
from typing import Any

import msgspec
import pytest

from gateway.actions.access import ROLES
from gateway.actions.problems import conflict
from gateway.admin.call import BASE, Route
from gateway.admin.routes import ROUTES
from gateway.control.rollouts.unstored import Ordered
from gateway.core.resilience.health import HealthSettings
from gateway.core.routing.service import WebhookSettings
from gateway.errors import IllegalTransition, StaleEpoch, StoreError
from gateway.store.api import BadCursor, Page
from gateway.store.records import DeploymentRecord, ServiceRecord, VersionRecord
from tests.unit.admin.bench import Bench

pytestmark = pytest.mark.filterwarnings("error")


def problem(response: Any) -> dict[str, Any]:
    assert dict(response.fields)["Content-Type"] == "application/problem+json"
    decoded: dict[str, Any] = json.loads(response.body)
    assert decoded["status"] == response.status
    assert decoded["title"]
    return decoded


async def test_a_version_is_registered_and_shown_where_location_says(
    bench: Bench, version: VersionRecord
) -> None:
    bench.actions.answers["versions.create"] = version
    body = b'{"serviceName": "auth", "version": "v1.1", "url": "http://127.0.0.1:7201"}'
    response = await bench.ask("POST", f"{BASE}/deployment/versions", role="operator", body=body)
    assert response.status == 201
    fields = dict(response.fields)
    assert fields["Location"] == f"{BASE}/deployment/versions/ver-1"
    assert fields["Content-Type"] == "application/json"
    assert fields["ETag"].startswith('"')
    shown = json.loads(response.body)
    assert (shown["serviceName"], shown["isActive"], shown["createdAt"]) == (
        "auth",
        False,
        "2026-01-02T03:04:05Z",
    )
    [(name, (actor, sent), _)] = bench.actions.calls
    assert (name, actor.role, sent.service_name) == ("versions.create", "operator", "auth")


async def test_a_list_comes_in_pieces(bench: Bench, version: VersionRecord) -> None:
    second = msgspec.structs.replace(version, id="ver-2")
    bench.actions.answers["versions.list_all"] = Page([version, second])
    cursor: str | None = ""
    seen = []
    while cursor is not None:
        query = f"limit=1&after={cursor}" if cursor else "limit=1"
        response = await bench.ask("GET", f"{BASE}/deployment/versions", role="viewer", query=query)
        decoded = json.loads(response.body)
        seen += [item["id"] for item in decoded["items"]]
        cursor = decoded["next"]
    assert seen == ["ver-1", "ver-2"]


@pytest.mark.parametrize("cursor", ["x", "1", "WyJ4", "bnVsbA", "WzFd", "%C3%A9"])
async def test_what_is_no_cursor_is_refused(bench: Bench, version: VersionRecord, cursor: str) -> None:
    bench.actions.answers["versions.list_all"] = Page([version])
    answer = await bench.ask("GET", f"{BASE}/deployment/versions", query=f"after={cursor}")
    assert answer.status == 422
    assert [each["pointer"] for each in json.loads(answer.body)["errors"]] == ["?after"]


async def test_what_the_store_takes_for_no_cursor_is_pointed_to(bench: Bench) -> None:
    bench.actions.answers["deployments.list_all"] = BadCursor("'zz' is not a cursor of this list")
    answer = await bench.ask("GET", f"{BASE}/deployment", query="after=zz")
    assert answer.status == 422
    assert [each["pointer"] for each in json.loads(answer.body)["errors"]] == ["?after"]


@pytest.mark.parametrize("change", ["the first goes", "one comes before", "one comes behind"])
async def test_a_list_that_changes_between_two_pieces_skips_and_doubles_nothing(
    bench: Bench, version: VersionRecord, change: str
) -> None:
    first, second, third, fourth = (msgspec.structs.replace(version, id=f"ver-{n}") for n in range(2, 6))
    bench.actions.answers["versions.list_all"] = Page([third, first, second])
    path = f"{BASE}/deployment/versions"
    piece = json.loads((await bench.ask("GET", path, query="limit=2")).body)
    assert [item["id"] for item in piece["items"]] == [first.id, second.id]
    bench.actions.answers["versions.list_all"] = Page(
        {
            "the first goes": [second, third],
            "one comes before": [version, first, second, third],
            "one comes behind": [first, second, third, fourth],
        }[change]
    )
    piece = json.loads((await bench.ask("GET", path, query=f"limit=2&after={piece['next']}")).body)
    rest = [third.id, fourth.id] if change == "one comes behind" else [third.id]
    assert [item["id"] for item in piece["items"]] == rest
    assert piece["next"] is None


async def test_what_signs_webhooks_is_never_shown(bench: Bench, service: ServiceRecord) -> None:
    hook = WebhookSettings(url="https://hooks.example/s3cret", secret="s3cret")
    health = HealthSettings(headers={"X-Key": "s3cret"})
    settings = msgspec.structs.replace(service.settings, webhooks=(hook,), health=health)
    record = msgspec.structs.replace(service, settings=settings)
    bench.actions.answers["services.get"] = record
    bench.actions.answers["services.list_all"] = Page([record])
    for path in ("services/auth", "services"):
        response = await bench.ask("GET", f"{BASE}/{path}", role="admin")
        assert b"s3cret" not in response.body
        assert b"hooks.example" in response.body
        assert b"X-Key" in response.body


async def test_nothing_under_the_base_answers_without_a_token(bench: Bench) -> None:
    for path in (f"{BASE}/deployment", f"{BASE}/nothing", BASE):
        response = await bench.ask("GET", path, role=None)
        assert response.status == 401
        assert dict(response.fields)["WWW-Authenticate"] == 'Bearer realm="gateway"'
        problem(response)
    assert bench.actions.calls == []


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.action)
async def test_no_call_answers_without_a_token_or_to_a_lower_role(bench: Bench, route: Route) -> None:
    path = f"{BASE}/{route.path.replace('{', '').replace('}', '')}"
    assert (await bench.ask(route.method, path, role=None)).status == 401
    for role in ROLES[: ROLES.index(route.role)]:
        assert (await bench.ask(route.method, path, role=role)).status == 403
    assert bench.actions.calls == []


async def test_a_wrong_token_is_401_then_429_and_a_right_one_still_works(bench: Bench) -> None:
    bench.actions.answers["services.list_all"] = Page([])
    for _ in range(3):
        response = await bench.ask("GET", f"{BASE}/services", token="gw_wrong")
        assert response.status == 401
        assert 'error="invalid_token"' in dict(response.fields)["WWW-Authenticate"]
    response = await bench.ask("GET", f"{BASE}/services", token="gw_wrong")
    assert response.status == 429
    assert dict(response.fields)["Retry-After"] == "901"
    assert bench.auth.refused_logins == 1
    assert len(bench.store.audit_rows) == 3
    assert (await bench.ask("GET", f"{BASE}/services")).status == 200
    bench.now += 901
    assert (await bench.ask("GET", f"{BASE}/services", token="gw_wrong")).status == 401


async def test_a_role_below_the_calls_is_403_and_audited(bench: Bench) -> None:
    response = await bench.ask("POST", f"{BASE}/deployment/dep-1/rollback", role="operator")
    assert response.status == 403
    assert "deployer" in problem(response)["detail"]
    [row] = bench.store.audit_rows
    assert (row.action, row.resource, row.resource_id, row.allowed) == (
        "deployment.rollback",
        "deployment",
        "dep-1",
        False,
    )
    assert bench.actions.calls == []


async def test_refusals_beyond_the_allowance_are_not_stored(bench: Bench) -> None:
    for _ in range(20):
        assert (await bench.ask("POST", f"{BASE}/deployment/dep-1/pause", role="viewer")).status == 403
    assert len(bench.store.audit_rows) == 5


async def test_a_role_too_low_says_so_however_often_and_costs_the_others_nothing(
    bench: Bench, deployment: DeploymentRecord
) -> None:
    """Two tokens share an address: what one may not do never uses up the other's allowance, or turns 429."""
    bench.actions.answers |= {"deployments.start": deployment}
    body = b'{"serviceName": "auth", "toVersion": "v1.1"}'
    for _ in range(20):
        response = await bench.ask("POST", f"{BASE}/deployment/start", role="operator", body=body)
        assert response.status == 403
    response = await bench.ask("POST", f"{BASE}/deployment/start", role="deployer", body=body)
    assert response.status == 201


async def test_a_refused_read_is_not_audited(bench: Bench) -> None:
    assert (await bench.ask("GET", f"{BASE}/tokens", role="deployer")).status == 403
    assert bench.store.audit_rows == []


async def test_another_method_is_405_with_allow(bench: Bench) -> None:
    response = await bench.ask("DELETE", f"{BASE}/deployment/start")
    assert response.status == 405
    assert dict(response.fields)["Allow"] == "OPTIONS, POST"
    response = await bench.ask("POST", "/metrics", role=None)
    assert (response.status, dict(response.fields)["Allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_options_names_the_methods(bench: Bench) -> None:
    response = await bench.ask("OPTIONS", f"{BASE}/deployment/versions/x", role="viewer")
    assert response.status == 204
    assert dict(response.fields)["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


async def test_head_is_served_by_get(bench: Bench, service: ServiceRecord) -> None:
    bench.actions.answers["services.get"] = service
    assert (await bench.ask("HEAD", f"{BASE}/services/auth", role="viewer")).status == 200


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b'{"percent": 101}', "application/json", 422),
        (b'{"percent": 10, "x": 1}', "application/json", 422),
    ],
)
async def test_a_bad_body_never_reaches_the_action(
    bench: Bench, body: bytes, media: str, status: int
) -> None:
    response = await bench.ask("PUT", f"{BASE}/deployment/dep-1/traffic", body=body, content_type=media)
    assert response.status == status
    assert problem(response)["detail"]
    assert bench.actions.calls == []
    [row] = bench.store.audit_rows
    assert (row.action, row.resource_id, row.allowed) == ("deployment.traffic", "dep-1", False)


async def test_an_actions_problem_is_the_answer(bench: Bench) -> None:
    bench.actions.answers["deployments.promote"] = conflict("auth has no open deployment", "start one")
    response = await bench.ask("POST", f"{BASE}/deployment/dep-1/promote")
    assert response.status == 409
    assert problem(response)["detail"] == "auth has no open deployment"
    bench.actions.answers["deployments.promote"] = IllegalTransition("not while pending")
    assert (await bench.ask("POST", f"{BASE}/deployment/dep-1/promote")).status == 409


async def test_starts_are_limited_and_rollbacks_are_not(bench: Bench, deployment: DeploymentRecord) -> None:
    bench.actions.answers |= {"deployments.start": deployment, "deployments.rollback": Ordered(deployment)}
    body = b'{"serviceName": "auth", "toVersion": "v1.1"}'
    for expected in (201, 201, 429):
        response = await bench.ask("POST", f"{BASE}/deployment/start", role="deployer", body=body)
        assert response.status == expected
    assert int(dict(response.fields)["Retry-After"]) > 0
    for _ in range(30):
        response = await bench.ask("POST", f"{BASE}/deployment/dep-1/rollback", role="deployer")
        assert response.status == 200


async def test_a_rollback_that_is_in_force_and_not_stored_is_202(
    bench: Bench, deployment: DeploymentRecord
) -> None:
    bench.actions.answers["deployments.rollback"] = Ordered(deployment, stored=False)
    bench.actions.answers["acknowledgements.of"] = StoreError("unable to open database file")
    response = await bench.ask("POST", f"{BASE}/deployment/dep-1/rollback", role="deployer")
    assert response.status == 202
    shown = json.loads(response.body)
    assert (shown["stored"], shown["nodes"]) == (False, ["a"])


async def test_a_store_that_fails_is_503_without_its_path(bench: Bench) -> None:
    bench.actions.answers["deployments.promote"] = StoreError("/var/secret/gateway.db: disk is full")
    response = await bench.ask("POST", f"{BASE}/deployment/dep-1/promote", role="deployer")
    assert response.status == 503
    assert int(dict(response.fields)["Retry-After"]) > 0
    assert b"secret" not in response.body


async def test_the_idempotency_key_is_handed_on(bench: Bench, deployment: DeploymentRecord) -> None:
    bench.actions.answers["deployments.start"] = deployment
    body = b'{"serviceName": "auth", "toVersion": "v1.1"}'
    await bench.ask("POST", f"{BASE}/deployment/start", body=body, idempotency_key="k-1")
    assert bench.actions.calls[0][2] == {"idempotency_key": "k-1"}


async def test_if_match_is_handed_on_and_a_known_etag_saves_the_body(
    bench: Bench, version: VersionRecord
) -> None:
    bench.actions.answers |= {"versions.patch": version, "versions.get": version}
    path = f"{BASE}/deployment/versions/ver-1"
    tag = dict((await bench.ask("GET", path)).fields)["ETag"]
    await bench.ask("PATCH", path, body=b'{"weight": 5}', if_match=tag)
    assert bench.actions.calls[-1][2] == {"if_match": tag}
    response = await bench.ask("GET", path, if_none_match=tag)
    assert (response.status, response.body) == (304, b"")


async def test_probes_and_the_page_need_no_token(bench: Bench) -> None:
    for path in ("/livez", "/readyz", "/openapi.json", "/"):
        assert (await bench.ask("GET", path, role=None)).status == 200
    bench.why_unready = "draining"
    response = await bench.ask("GET", "/readyz", role=None)
    assert (response.status, response.body) == (503, b"not ready: draining\n")
    assert (await bench.ask("GET", "/livez", role=None)).status == 200


async def test_every_page_of_the_dashboard_is_one_document(bench: Bench) -> None:
    page = await bench.ask("GET", "/", role=None)
    fields = dict(page.fields)
    assert "script-src 'self'" in fields["Content-Security-Policy"]
    for path in ("/rollouts/0a1b", "/services/a%20b", "/history", "/audit", "/tokens"):
        assert (await bench.ask("GET", path, role=None)).body == page.body
    unchanged = await bench.ask("GET", "/history", role=None, if_none_match=fields["ETag"])
    assert (unchanged.status, unchanged.body) == (304, b"")
    script = await bench.ask("GET", "/assets/main.js", role=None)
    assert dict(script.fields)["Content-Type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(
    "path",
    ["/rollouts", "/rollouts/", "/rollouts/a/b", "/history/", "/main.js", "/assets/", "/assets/../site.py"],
)
async def test_nothing_is_beside_the_pages(bench: Bench, path: str) -> None:
    assert (await bench.ask("GET", path, role=None)).status == 404


async def test_metrics_are_open_on_loopback_only(bench: Bench) -> None:
    assert (await bench.ask("GET", "/metrics", role=None)).status == 401
    assert (await bench.ask("GET", "/metrics", role="viewer")).status == 200


async def test_an_unknown_path_outside_the_base_is_404(bench: Bench) -> None:
    response = await bench.ask("GET", "/favicon.ico", role=None)
    assert response.status == 404
    problem(response)
    assert (await bench.ask("GET", BASE + "x", role=None)).status == 404


async def test_every_answer_is_kept_out_of_caches(bench: Bench) -> None:
    bench.actions.answers["services.list_all"] = Page([])
    for response in (await bench.ask("GET", f"{BASE}/services"), await bench.ask("GET", BASE, role=None)):
        assert dict(response.fields)["Cache-Control"] == "no-store"
        assert dict(response.fields)["X-Content-Type-Options"] == "nosniff"


async def test_changes_wait_while_another_process_takes_over(
    bench: Bench, deployment: DeploymentRecord
) -> None:
    bench.actions.answers |= {"deployments.rollback": Ordered(deployment), "deployments.get": deployment}
    bench.server.hold_changes(held=True)
    response = await bench.ask("POST", f"{BASE}/deployment/dep-1/rollback")
    assert (response.status, dict(response.fields)["Retry-After"]) == (503, "1")
    assert (await bench.ask("GET", f"{BASE}/deployment/dep-1")).status == 200
    bench.server.hold_changes(held=False)
    bench.actions.answers["deployments.rollback"] = StaleEpoch("epoch 4 has begun")
    response = await bench.ask("POST", f"{BASE}/deployment/dep-1/rollback")
    assert (response.status, dict(response.fields)["Retry-After"]) == (503, "1")
