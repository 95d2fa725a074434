"""Browser sessions: what the cookie opens, from where, and until when."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.admin.call import BASE
from gateway.admin.sessions import LIFE_S, LINK_LIFE_S, LINKS, PER_TOKEN, Sessions
from gateway.control.rollouts.unstored import Ordered
from gateway.store.api import Page
from gateway.store.records import DeploymentRecord
from tests.unit.admin.bench import AT, Bench

HOST = "127.0.0.1:4201"


async def sign_in(bench: Bench, role: Any = "deployer", **fields: str) -> str:
    """Return the cookie as a browser sends it."""
    response = await bench.ask("POST", f"{BASE}/session", role=role, host=HOST, **fields)
    assert response.status == 200
    field = dict(response.fields)["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={LIFE_S}"} <= set(field.split("; "))
    assert ("Secure" in field) == fields.get("origin", "").startswith("https:")
    return field.partition(";")[0]


async def test_a_cookie_stands_for_its_token(bench: Bench, deployment: DeploymentRecord) -> None:
    bench.actions.answers |= {"services.list_all": Page([]), "deployments.rollback": Ordered(deployment)}
    cookie = f"theme=dark; {await sign_in(bench)}"
    assert (await bench.ask("GET", f"{BASE}/services", role=None, cookie=cookie, host=HOST)).status == 200
    rollback = f"{BASE}/deployment/dep-1/rollback"
    own = {"cookie": cookie, "host": HOST, "origin": f"http://{HOST}"}
    assert (await bench.ask("POST", rollback, role=None, **own)).status == 200
    assert bench.actions.calls[-1][1][0].name == "deployer"
    assert (await bench.ask("GET", f"{BASE}/audit", role=None, cookie=cookie)).status == 403


@pytest.mark.parametrize(
    "origin", [None, "http://evil.example", "null", "http://127.0.0.1:4200", "http://127.0.0.1"]
)
async def test_a_change_by_cookie_comes_from_our_own_page(bench: Bench, origin: str | None) -> None:
    fields = {"cookie": await sign_in(bench), "host": HOST} | ({"origin": origin} if origin else {})
    for method, path in (("POST", "deployment/dep-1/rollback"), ("DELETE", "session"), ("PUT", "freeze")):
        assert (await bench.ask(method, f"{BASE}/{path}", role=None, **fields)).status == 403
    assert bench.actions.calls == []


async def test_a_token_needs_no_origin(bench: Bench, deployment: DeploymentRecord) -> None:
    bench.actions.answers["deployments.rollback"] = Ordered(deployment)
    rollback = f"{BASE}/deployment/dep-1/rollback"
    assert (await bench.ask("POST", rollback, role="deployer", origin="http://else.example")).status == 200


async def test_a_session_ends_with_log_out_its_token_and_the_day(bench: Bench) -> None:
    bench.actions.answers["services.list_all"] = Page([])

    async def status(cookie: str) -> int:
        return (await bench.ask("GET", f"{BASE}/services", role=None, cookie=cookie)).status

    left, old, revoked = [await sign_in(bench) for _ in range(3)]
    assert [await status(each) for each in (left, old, revoked)] == [200, 200, 200]
    own = {"cookie": left, "host": HOST, "origin": f"http://{HOST}"}
    response = await bench.ask("DELETE", f"{BASE}/session", role=None, **own)
    assert (response.status, "Max-Age=0" in dict(response.fields)["Set-Cookie"]) == (204, True)
    assert [await status(each) for each in (left, old)] == [401, 200]
    bench.now += LIFE_S
    assert await status(old) == 401
    fresh = await sign_in(bench)
    record = bench.store.token_records.popitem()[1]
    bench.auth.learn(replace(record, revoked_at=AT))
    assert await status(fresh) == 401


async def test_a_session_does_not_outlive_an_expired_token(bench: Bench) -> None:
    bench.actions.answers["services.list_all"] = Page([])
    cookie = await sign_in(bench)
    (record,) = bench.store.token_records.values()
    bench.auth.learn(replace(record, expires_at=AT))
    assert (await bench.ask("GET", f"{BASE}/services", role=None, cookie=cookie)).status == 401
    assert (await bench.ask("POST", f"{BASE}/session", token="gw_deployer-token")).status == 401


async def test_an_expired_token_opens_nothing(bench: Bench) -> None:
    bench.put_token("gw_late", name="late", role="admin", expires_at=AT)
    assert (await bench.ask("GET", f"{BASE}/services", token="gw_late")).status == 401


def test_sessions_of_one_token_are_bounded_and_push_out_no_others() -> None:
    sessions = Sessions(clock=lambda: 0.0)
    other = sessions.open("other")
    values = [sessions.open("one") for _ in range(PER_TOKEN + 5)]
    found = [sessions.token_of({"cookie": f"gateway_session={value}"}) for value in (other, *values)]
    assert found == ["other", *[None] * 5, *["one"] * PER_TOKEN]


async def test_a_link_signs_in_once_as_the_token_it_was_asked_for_with(bench: Bench) -> None:
    bench.actions.answers["services.list_all"] = Page([])
    response = await bench.ask("POST", f"{BASE}/session/link", role="viewer")
    assert response.status == 201
    assert isinstance(response.body, bytes)
    link = msgspec.json.decode(response.body)
    assert link["expiresIn"] == LINK_LIFE_S
    path, _, query = link["path"].partition("?")
    assert (await bench.ask("HEAD", path, role=None, query=query)).status == 404
    first = await bench.ask("GET", path, role=None, query=query)
    assert (first.status, dict(first.fields)["Location"]) == (303, "/")
    cookie = dict(first.fields)["Set-Cookie"].partition(";")[0]
    assert (await bench.ask("GET", f"{BASE}/services", role=None, cookie=cookie)).status == 200
    assert (await bench.ask("GET", f"{BASE}/audit", role=None, cookie=cookie)).status == 403
    for wrong in (query, "", "code=", "code=x"):
        again = await bench.ask("GET", path, role=None, query=wrong)
        assert again.status == 303
        assert "Set-Cookie" not in dict(again.fields)


async def test_the_page_learns_whether_there_is_a_session_and_nothing_of_tokens(bench: Bench) -> None:
    """Guards a browser with a cookie from the sign-in form, and the token limit from a way around it."""
    signed = await bench.ask("POST", f"{BASE}/session", role="viewer")
    cookie = dict(signed.fields)["Set-Cookie"].partition(";")[0]
    asked = [
        await bench.ask("GET", "/session", role=None, cookie=cookie),
        await bench.ask("GET", "/session", role=None),
        await bench.ask("GET", "/session", role=None, cookie="gateway_session=x"),
        await bench.ask("GET", "/session", role="admin"),
    ]
    assert [response.body for response in asked] == [b'{"signedIn": true}', *[b'{"signedIn": false}'] * 3]


def test_a_link_lasts_ten_minutes_and_there_are_few() -> None:
    now = 0.0
    sessions = Sessions(clock=lambda: now)
    codes = [sessions.offer("one") for _ in range(LINKS + 5)]
    assert [sessions.redeem(code) is not None for code in codes[4:6]] == [False, True]
    now = LINK_LIFE_S
    assert sessions.redeem(codes[-1]) is None
