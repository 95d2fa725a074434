"""What of a request is evidence about the version that got it."""

import pytest

from gateway.core.settings.sticky import StickySettings

from .proxying import OK, Peer, Upstream, eventually, proxying


def answering(answer: bytes) -> Upstream:
    upstream = Upstream()
    upstream.answer = answer
    return upstream


@pytest.mark.parametrize(
    ("value", "errors"),
    [
        (b"payment=failed", {"outcome:payment|GET /pay": 1}),
        (b"search=ok, payment = Failed", {"outcome:payment|GET /pay": 1}),
        (b"payment=ok", {}),
        (b"failed", {}),
        (b"pay|ment=failed", {}),
    ],
)
async def test_a_services_own_outcome_counts_and_is_kept_from_the_client(
    value: bytes, errors: dict[str, int]
) -> None:
    upstream = answering(b"HTTP/1.1 200 OK\r\nX-Outcome: %b\r\nContent-Length: 2\r\n\r\nok" % value)
    async with proxying(upstream) as proxy:
        answer = await proxy.ask(b"GET /pay?x=1 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"outcome" not in answer.lower()
        counts = proxy.counts("v1")
        counts.fold()
        assert counts.judged[1, 10000].errors == errors
        assert counts.judged[1, 10000].answers == 1
        assert counts.requests == {("GET", 200): 1}


async def test_errors_carry_their_route_class_and_good_answers_cost_none() -> None:
    upstream = answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    async with proxying(upstream) as proxy:
        for number in (17, 18, 19):
            await proxy.ask(b"GET /orders/%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        upstream.answer = OK
        await proxy.ask(b"GET /good HTTP/1.1\r\nHost: h\r\n\r\n")
        counts = proxy.counts("v1")
        counts.fold()
        assert counts.judged[1, 10000].errors == {"404|GET /orders/:id": 3}
        assert counts.routes == {"GET /orders/:id"}


async def test_route_classes_are_bounded() -> None:
    upstream = answering(b"HTTP/1.1 500 Bad\r\nContent-Length: 2\r\n\r\nno")
    async with proxying(upstream, retry=False, breaker=False) as proxy:
        for first in "abcdefghij":
            for second in "abcdefghij":
                await proxy.ask(f"GET /{first}{second} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        counts = proxy.counts("v1")
        assert len(counts.routes) == 64
        assert counts.judged[1, 10000].errors["500|other"] == 36


async def test_a_client_that_leaves_in_the_middle_of_its_upload_says_nothing_of_the_version() -> None:
    async def script(peer: Peer) -> None:
        await peer.rest()

    async with proxying(Upstream(script)) as proxy:
        client = await proxy.client()
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
        await eventually(lambda: proxy.counts("v1").in_flight == 1)
        client.close()
        await eventually(lambda: proxy.counts("v1").attempts == {"client_gone": 1})
        assert not proxy.counts("v1").judged


async def test_users_known_by_a_key_are_told_from_those_without() -> None:
    upstream = answering(b"HTTP/1.1 500 Bad\r\nContent-Length: 2\r\n\r\nno")
    sticky = StickySettings(by="header:X-User")
    async with proxying(upstream, sticky=sticky, retry=False, breaker=False) as proxy:
        await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\nX-User: ann\r\n\r\n")
        await proxy.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        counts = proxy.counts("v1")
        (errors,) = [judged.errors for judged in counts.judged.values()]
        assert errors == {"500|GET /|user": 1, "500|GET /": 1}
        ((_, _, _, kind),) = counts.cohort_errors
        assert kind == "500|GET /"
