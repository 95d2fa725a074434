"""Every call of the table, by everybody: each role, nobody, and tokens that are over."""

from datetime import timedelta
from typing import Any

import pytest

from gateway.actions.access import ROLES
from gateway.actions.problems import conflict
from gateway.admin.call import BASE, Route
from gateway.admin.parse import NoBody
from gateway.admin.routes import ROUTES
from tests.unit.admin.bench import AT, Bench

WHO = (*ROLES, "nobody", "unknown", "revoked", "expired", "expires later")
BODIES: dict[str, bytes] = {
    "version.create": b'{"serviceName": "auth", "version": "v1", "url": "http://127.0.0.1:1"}',
    "deployment.start": b'{"serviceName": "auth", "toVersion": "v1"}',
    "deployment.traffic": b'{"percent": 1}',
    "deployment.whatif": b'{"serviceName": "auth"}',
    "service.create": b'{"name": "auth"}',
    "token.create": b'{"name": "ci", "role": "viewer"}',
    "freeze.put": b'{"frozen": true}',
}
"""Of calls whose body has to hold something."""


class Anything:
    """Actions that all say 409: whoever gets as far as one was let through."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    def __getattr__(self, noun: str) -> Any:
        reached = self.reached

        class Noun:
            def __getattr__(self, verb: str) -> Any:
                if verb == "unstored_at":
                    return lambda _: ""

                async def action(*_: object, **__: object) -> None:
                    reached.append(f"{noun}.{verb}")
                    raise conflict("let through", "nothing")

                return action

        return Noun()


def token_of(bench: Bench, who: str) -> str | None:
    if who == "nobody":
        return None
    if who == "unknown":
        return "gw_unknown"
    if who in ROLES:
        return bench.token(who)  # type: ignore[arg-type]
    ends: dict[str, Any] = {
        "revoked": {"revoked_at": AT - timedelta(days=1)},
        "expired": {"expires_at": AT},
        "expires later": {"expires_at": AT + timedelta(seconds=1)},
    }
    bench.put_token("gw_over", name=who, role="admin", **ends[who])
    return "gw_over"


def expected(route: Route, who: str) -> int:
    """Return 0 for whoever is let through, else the status of the refusal."""
    if who in ("nobody", "unknown", "revoked", "expired"):
        return 401
    role = "admin" if who == "expires later" else who
    return 0 if ROLES.index(role) >= ROLES.index(route.role) else 403


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.action)
async def test_a_call_is_for_whom_the_table_says(bench: Bench, route: Route, who: str) -> None:
    actions = Anything()
    bench.server._actions = actions  # type: ignore[assignment]
    path = f"{BASE}/{route.path}".replace("{id}", "x").replace("{name}", "auth")
    body = BODIES.get(route.action, b"") if route.body is not NoBody else b""
    response = await bench.ask(
        route.method, path, role=None, token=token_of(bench, who), body=body, accept="application/json"
    )
    refused = expected(route, who)
    if refused:
        assert response.status == refused
        assert actions.reached == []
    elif route.path in ("session", "session/link"):
        assert response.status == route.status
    else:
        assert response.status == 409
        assert len(actions.reached) == 1


def test_the_calls_whose_body_must_hold_something_are_all_tried_with_one() -> None:
    assert BODIES.keys() <= {route.action for route in ROUTES}
