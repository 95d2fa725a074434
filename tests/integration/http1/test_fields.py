"""Fields on their way: hop-by-hop (RFC 9110 §7.6.1), Via (§7.6.3), Forwarded (RFC 7239), Date (§6.6.1)."""

import asyncio
import re

import pytest

from gateway.core.routing.service import RouteSettings, VersionHeaderSettings
from gateway.core.routing.testers import TesterSettings as Secrets
from gateway.core.settings.sticky import StickySettings
from gateway.link.snapshot import ProxySettings
from tests.integration.http1.proxying import GET, OK, Peer, Upstream, eventually, proxying, service, version

TRUSTING = ProxySettings(trusted_proxies=(("127.0.0.0/8",),))


async def seen_of(
    fields: bytes, proxy_settings: ProxySettings | None = None, start: bytes = b"GET /"
) -> bytes:
    """Return the head an upstream gets for a request with these fields."""
    upstream = Upstream()
    async with proxying(upstream, proxy=proxy_settings) as proxy:
        await proxy.ask(start + b" HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")
    return upstream.seen[0]


async def answer_of(response: bytes, request: bytes = GET) -> bytes:
    """Return what a client gets when the upstream answers with `response`."""
    upstream = Upstream()
    upstream.answer = response
    async with proxying(upstream) as proxy:
        return await proxy.ask(request)


@pytest.mark.parametrize(
    "field",
    [
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic eDp5",
        b"TE: gzip",
        b"Trailer: X-Sum",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAA",
        b"Proxy-Whatever: 1",
        b"Proxy: http://evil/",
    ],
)
async def test_hop_by_hop_field_of_a_request_stays_here(field: bytes) -> None:
    name = field.split(b":")[0].lower()
    assert b"\r\n" + name + b":" not in (await seen_of(field + b"\r\n")).lower()


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        (b"gateway_session=s3cret", None),
        (b"a=1; gateway_session=s3cret; b=2", b"a=1; b=2"),
        (b"gateway_session=s3cret;gateway_session=s3cret; b=2", b"b=2"),
        (b"a=gateway_session", b"a=gateway_session"),
        (b"my_gateway_session=1", b"my_gateway_session=1"),
    ],
)
async def test_no_service_sees_a_session_of_the_admin_listener(sent: bytes, passed_on: bytes | None) -> None:
    """Guards it from every service of the host: cookies know no port."""
    seen = await seen_of(b"Cookie: " + sent + b"\r\n")
    assert b"s3cret" not in seen
    assert (b"\r\nCookie: " in seen) == (passed_on is not None)
    assert passed_on is None or b"\r\nCookie: " + passed_on + b"\r\n" in seen


async def test_nominated_field_is_dropped_whatever_its_spelling() -> None:
    seen = await seen_of(b"Connection: close, x-private\r\nX-PRIVATE: 1\r\nX-Public: 2\r\n")
    assert b"private" not in seen.lower()
    assert b"\r\nX-Public: 2\r\n" in seen


async def test_nomination_does_not_strip_what_the_gateway_adds() -> None:
    seen = await seen_of(
        b"Connection: x-forwarded-for, host, x-request-id, via, content-length\r\nContent-Length: 0\r\n"
    )
    for field in (
        b"X-Forwarded-For: 127.0.0.1",
        b"Host: h",
        b"X-Request-ID: ",
        b"Content-Length: 0",
    ):
        assert b"\r\n" + field in seen


async def test_te_trailers_is_passed_on_as_our_own() -> None:
    assert b"\r\nConnection: TE\r\nTE: trailers\r\n" in await seen_of(b"TE: trailers;q=0.5\r\n")


async def test_h2c_upgrade_is_not_passed_on() -> None:
    seen = await seen_of(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n")
    assert b"upgrade" not in seen.lower()


async def test_forwarded_fields_of_a_stranger_are_replaced() -> None:
    seen = await seen_of(
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n"
        b"X-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6\r\nX-FORWARDED-FOR: 7.7.7.7\r\n"
    )
    assert b"6.6.6.6" not in seen
    assert b"7.7.7.7" not in seen
    assert b"evil" not in seen
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in seen
    assert b"\r\nX-Forwarded-Proto: http\r\n" in seen
    assert b"\r\nX-Forwarded-Host: h\r\n" in seen
    assert b"\r\nX-Forwarded-Port: 80\r\n" in seen
    assert b"\r\nForwarded: for=127.0.0.1;host=h;proto=http\r\n" in seen


async def test_forwarded_fields_of_a_trusted_proxy_are_continued() -> None:
    seen = await seen_of(
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\n"
        b"X-Forwarded-Port: 443\r\nForwarded: for=7.7.7.7;proto=http;host=evil\r\n",
        TRUSTING,
    )
    assert b"\r\nX-Forwarded-For: 6.6.6.6, 127.0.0.1\r\n" in seen
    assert b"\r\nX-Forwarded-Proto: https\r\n" in seen
    assert b"\r\nX-Forwarded-Host: shop\r\n" in seen
    assert b"\r\nX-Forwarded-Port: 443\r\n" in seen
    assert b"\r\nForwarded: for=6.6.6.6;host=shop;proto=https, for=127.0.0.1\r\n" in seen


async def test_what_a_trusted_proxy_says_in_forwarded_alone_is_said_in_both() -> None:
    seen = await seen_of(b'Forwarded: for="[2001:db8::1]:4001";host="shop:8443";proto=https\r\n', TRUSTING)
    assert b"\r\nX-Forwarded-For: 2001:db8::1, 127.0.0.1\r\n" in seen
    assert b"\r\nX-Forwarded-Proto: https\r\n" in seen
    assert b"\r\nX-Forwarded-Host: shop:8443\r\n" in seen
    assert b"\r\nX-Forwarded-Port: 8443\r\n" in seen
    assert b'\r\nForwarded: for="[2001:db8::1]";host="shop:8443";proto=https, for=127.0.0.1\r\n' in seen


@pytest.mark.parametrize(
    "name", [b"X-Forwarded-User", b"x-forwarded-prefix", b"X_Forwarded_Ssl", b"X-Real-IP", b"X_REAL_IP"]
)
async def test_what_only_a_trusted_proxy_may_say_is_removed_from_a_strangers_request(name: bytes) -> None:
    field = name + b": 6.6.6.6\r\n"
    seen = await seen_of(field + b"X-Other: kept\r\n" + field)
    assert b"6.6.6.6" not in seen
    assert b"\r\nX-Other: kept\r\n" in seen
    assert (await seen_of(field, TRUSTING)).count(field) == 1


async def test_each_listener_trusts_its_own_proxies() -> None:
    upstream = Upstream()
    settings = ProxySettings(trusted_proxies=((), ("127.0.0.0/8",)))
    ask = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    async with proxying(upstream, proxy=settings) as proxy:
        await proxy.ask(ask)
        for listen in (1, 2):
            server = await asyncio.get_running_loop().create_server(
                proxy.plane.factory(listen=listen), "127.0.0.1", 0
            )
            proxy.port = server.sockets[0].getsockname()[1]
            await proxy.ask(ask)
            server.close()
    assert [b"6.6.6.6" in each for each in upstream.seen] == [False, True, False]


async def test_request_id_is_kept_if_well_formed_else_made() -> None:
    assert b"\r\nX-Request-ID: abc-123\r\n" in await seen_of(b"X-Request-ID: abc-123\r\n")
    assert b"a b" not in await seen_of(b"X-Request-ID: a b\r\n")
    assert b"\r\nX-Request-ID: " in await seen_of(b"")


@pytest.mark.parametrize(
    "name",
    [
        *(b"X_Forwarded_For", b"X-Forwarded_For", b"content_length", b"X_Request_ID"),
        *(b"X.Forwarded.For", b"X~Forwarded*Proto", b"x-real.ip", b"Transfer.Encoding", b"X!Forwarded!By"),
    ],
)
async def test_field_that_a_service_might_take_for_one_of_ours_is_dropped(name: bytes) -> None:
    """CGI makes `_` of hyphens; lighttpd does so of every mark in a name, PHP of dots."""
    seen = await seen_of(name + b": 6.6.6.6\r\nX_Other: kept\r\n")
    assert b"6.6.6.6" not in seen
    assert b"\r\nX_Other: kept\r\n" in seen


async def test_via_is_written_only_if_asked_for_and_names_the_version_received() -> None:
    """RFC 9110 §7.6.3. Servers in the manner of nginx stop compressing when they see one."""
    asks = [
        b"GET / HTTP/1.%d\r\nHost: h\r\n%b\r\n" % (n, via)
        for n in (0, 1)
        for via in (b"", b"Via: 1.0 fred\r\n")
    ]
    found = []
    for is_on in (False, True):
        upstream = Upstream()
        async with proxying(upstream, proxy=ProxySettings(via=is_on)) as proxy:
            for ask in asks:
                await proxy.ask(ask)
        found += [re.findall(rb"\r\nVia: ([^\r]*)", each) for each in upstream.seen]
    assert found == [
        [], [b"1.0 fred"], [], [b"1.0 fred"],
        [b"1.0 gateway"], [b"1.0 fred, 1.0 gateway"], [b"1.1 gateway"], [b"1.0 fred, 1.1 gateway"],
    ]  # fmt: skip


async def test_request_that_comes_round_again_is_508() -> None:
    """RFC 8586."""
    upstream = Upstream()
    async with proxying(upstream, proxy=ProxySettings(gateway_id="me")) as proxy:
        for loop in (b"", b"CDN-Loop: other; s=s\r\nCDN-Loop: me; s=front\r\nConnection: cdn-loop\r\n"):
            await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\n" + loop + b"\r\n")
        again = await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\nCDN-Loop: other, me ; s=s\r\n\r\n")
    assert re.findall(rb"\r\nCDN-Loop: ([^\r]*)", upstream.seen[0]) == [b"me; s=s"]
    assert re.findall(rb"\r\nCDN-Loop: ([^\r]*)", upstream.seen[1]) == [b"other; s=s, me; s=front, me; s=s"]
    assert again.startswith(b"HTTP/1.1 508 ")
    assert len(upstream.seen) == 2


async def test_repeated_fields_stay_apart_and_in_order() -> None:
    assert b"\r\nX-A: 1\r\nAccept: */*\r\nX-A: 2\r\n" in await seen_of(b"X-A: 1\r\nAccept: */*\r\nX-A: 2\r\n")


async def test_max_forwards_counts_down_and_ends_here() -> None:
    """RFC 9110 §7.6.2."""
    assert b"\r\nMax-Forwards: 2\r\n" in await seen_of(b"Max-Forwards: 3\r\n", start=b"OPTIONS /")
    upstream = Upstream()
    async with proxying(upstream) as proxy:
        options = await proxy.ask(b"OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")
        trace = await proxy.ask(
            b"TRACE /x HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nCookie: secret\r\nX-A: 1\r\n\r\n"
        )
    assert options.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nAllow: " in options
    assert b"\r\n\r\nTRACE /x HTTP/1.1\r\nX-A: 1\r\n\r\n" in trace
    assert b"secret" not in trace
    assert upstream.seen == []


async def test_version_field_is_stripped_from_strangers_and_heeded_from_testers() -> None:
    one, two = Upstream(), Upstream()
    ask = b"GET / HTTP/1.1\r\nHost: h\r\nx-service-VERSION: v2\r\n\r\n"
    async with proxying(one, two) as proxy:
        proxy.apply(
            service(
                version("v1", one),
                version("v2", two, weight=0),
                version_header=VersionHeaderSettings(allow_from=("10.0.0.0/8",)),
            )
        )
        await proxy.ask(ask)
        proxy.apply(service(version("v1", one), version("v2", two, weight=0)))
        await proxy.ask(ask)
        assert not proxy.counts("v2").judged
    assert (len(one.seen), len(two.seen)) == (1, 1)
    assert b"version" not in (one.seen[0] + two.seen[0]).lower()


async def test_version_field_is_heeded_from_the_client_a_trusted_proxy_names() -> None:
    """Guards against a stranger behind a local proxy, whose own address would have been let choose."""
    one, two = Upstream(), Upstream()
    ask = b"GET / HTTP/1.1\r\nHost: h\r\nX-Service-Version: v2\r\nX-Forwarded-For: %b\r\n\r\n"
    async with proxying(one, two, proxy=TRUSTING) as proxy:
        proxy.apply(
            service(
                version("v1", one),
                version("v2", two, weight=0),
                version_header=VersionHeaderSettings(allow_from=("127.0.0.0/8", "10.0.0.0/8")),
            )
        )
        await proxy.ask(ask % b"6.6.6.6")
        await proxy.ask(ask % b"10.0.0.1, 6.6.6.6, 127.0.0.1")
        assert (len(one.seen), len(two.seen)) == (2, 0)
        await proxy.ask(ask % b"6.6.6.6, 10.0.0.1:4001")
    assert (len(one.seen), len(two.seen)) == (2, 1)


async def test_field_that_a_service_might_take_for_the_version_field_is_dropped() -> None:
    seen = await seen_of(b"X_Service_Version: v2\r\nX-Service_version: v2\r\nX_Other: kept\r\n")
    assert b"v2" not in seen
    assert b"\r\nX_Other: kept\r\n" in seen


async def test_prefix_is_stripped_if_the_route_says_so() -> None:
    upstream = Upstream()
    async with proxying(upstream, routes=(RouteSettings(path="/api", strip_prefix=True),)) as proxy:
        await proxy.ask(b"GET /api/x?y HTTP/1.1\r\nHost: h\r\n\r\n")
        await proxy.ask(b"GET /api HTTP/1.1\r\nHost: h\r\n\r\n")
        await proxy.ask(b"GET //%61pi//evil.example/%7E//x HTTP/1.1\r\nHost: h\r\n\r\n")
        await proxy.ask(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
    asked = [each.split()[1] for each in upstream.seen]
    assert asked[:3] == [b"/x?y", b"/", b"/evil.example/%7E//x"]


async def test_hop_by_hop_fields_of_a_response_stay_here() -> None:
    answer = await answer_of(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=9\r\n"
        b"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X\r\nX-Public: 2\r\nContent-Length: 0\r\n\r\n"
    )
    head = answer.lower()
    for name in (b"private", b"keep-alive", b"proxy-", b"upgrade", b"trailer"):
        assert name not in head
    assert b"\r\nX-Public: 2\r\n" in answer


async def test_date_is_added_only_if_missing() -> None:
    """RFC 9110 §6.6.1."""
    kept = await answer_of(b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n")
    assert kept.count(b"Date: ") == 1
    assert b"\r\nDate: then\r\n" in kept
    assert b"\r\nDate: " in await answer_of(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def test_cookies_of_a_response_stay_apart() -> None:
    answer = await answer_of(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"
    )
    assert b"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n" in answer


async def test_trailers_are_announced_both_ways() -> None:
    """RFC 9110 §6.6.2."""
    upstream = Upstream()
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Host\r\n\r\n0\r\nX-Sum: 9\r\n\r\n"
    )
    async with proxying(upstream) as proxy:
        client = await proxy.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Hash\r\n\r\n0\r\n\r\n"
        )
        head = await client.head()
    assert b"\r\nTrailer: X-Sum\r\n" in head
    assert b"\r\nTrailer: X-Hash\r\n" in upstream.seen[0]


async def test_426_says_what_to_upgrade_to() -> None:
    """RFC 9110 §15.5.22."""
    answer = await answer_of(
        b"HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in answer


async def test_trailers_travel_but_not_those_that_frame_or_authorize() -> None:
    """RFC 9110 §6.5.1."""
    bodies = []

    async def script(peer: object) -> None:
        await peer.head()  # type: ignore[attr-defined]
        bodies.append(await peer.until(b"\r\n\r\n"))  # type: ignore[attr-defined]
        peer.send(  # type: ignore[attr-defined]
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\nX-Sum: 9\r\nContent-Length: 7\r\n\r\n"
        )
        await peer.rest()  # type: ignore[attr-defined]

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\nX-Hash: 1\r\nHost: evil\r\nAuthorization: x\r\n\r\n"
        )
        await client.head()
        end = await client.until(b"\r\n\r\n")
    assert bodies == [b"1\r\na\r\n0\r\nX-Hash: 1\r\n\r\n"]
    assert end == b"1\r\na\r\n0\r\nX-Sum: 9\r\n\r\n"


@pytest.mark.parametrize(
    "name",
    [
        *(b"X-Forwarded-For", b"x_forwarded_for", b"X.Forwarded.Proto", b"X-Forwarded-User", b"X-Real-IP"),
        *(b"Content_Length", b"Proxy", b"Via", b"CDN-Loop", b"X-Service-Version", b"X_Release", b"X-Mine"),
    ],
)
async def test_trailer_says_nothing_that_a_head_may_not(name: bytes) -> None:
    """Guards claims and testers' secrets that passed behind a body; some services merge trailers in."""
    bodies = []

    async def script(peer: Peer) -> None:
        await peer.head()
        bodies.append(await peer.until(b"\r\n\r\n"))
        peer.send(OK)

    testers = Secrets(header="X-Release", values={"s3cret": "v1"})
    async with proxying(Upstream(script), proxy=TRUSTING, testers=testers) as proxy:
        await proxy.ask(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: X-Mine\r\n\r\n"
            b"1\r\na\r\n0\r\n%b: s3cret\r\nX-Sum: 1\r\n\r\n" % name
        )
    assert bodies == [b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"]


async def test_sticky_user_keeps_the_version_and_gets_a_cookie() -> None:
    one, two = Upstream(), Upstream()
    async with proxying(one, two) as proxy:
        proxy.apply(
            service(
                version("v1", one, weight=50),
                version("v2", two, weight=50),
                sticky=StickySettings(by="cookie:uid", issue_cookie=True),
            )
        )
        answer = await proxy.ask(GET)
        cookie = answer.split(b"\r\nSet-Cookie: ")[1].split(b";")[0]
        first = (len(one.seen), len(two.seen))
        for _ in range(5):
            again = await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b; " + cookie + b"\r\n\r\n")
            assert b"Set-Cookie" not in again
        await eventually(lambda: len(one.seen) + len(two.seen) == 6)
        assert (len(one.seen), len(two.seen)) == (first[0] * 6, first[1] * 6)


async def test_sticky_cookie_is_for_https_alone_where_the_client_came_by_it() -> None:
    upstream = Upstream()
    by_https = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n"
    async with proxying(upstream, proxy=TRUSTING) as proxy:
        sticky = StickySettings(by="cookie:uid", issue_cookie=True)
        proxy.apply(service(version("v1", upstream), sticky=sticky), proxy=TRUSTING)
        answers = [await proxy.ask(GET), await proxy.ask(by_https)]
        factory = proxy.plane.factory(tls=True)
        async with await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0) as server:
            proxy.port = server.sockets[0].getsockname()[1]
            answers.append(await proxy.ask(GET))
    cookies = [answer.split(b"\r\nSet-Cookie: ")[1].split(b"\r\n")[0] for answer in answers]
    for cookie, secure in zip(cookies, (b"", b"; Secure", b"; Secure"), strict=True):
        assert cookie.partition(b"; ")[2] == b"Path=/; HttpOnly; SameSite=Lax" + secure


@pytest.mark.parametrize("status", [404, 500])
async def test_a_sticky_users_error_is_told_with_its_kind(status: int) -> None:
    """The judge compares users by their first that counts; which do, the rollout says."""
    upstream = Upstream()
    upstream.answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status
    async with proxying(upstream) as proxy:
        proxy.apply(
            service(version("v1", upstream, weight=100), sticky=StickySettings(by="cookie:uid"), retry=False)
        )
        await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: uid=7\r\n\r\n")
        counts = proxy.counts("v1")
        await eventually(lambda: bool(counts.judged))
        assert next(iter(counts.judged.values())).errors == {f"{status}|GET /|user": 1}
        assert [kind for *_, kind in counts.cohort_errors] == [f"{status}|GET /"]
