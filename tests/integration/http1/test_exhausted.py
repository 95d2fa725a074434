"""Out of descriptors: nobody's failure but the gateway's own, and soon over."""

from tests.integration.descriptors import no_descriptors_left
from tests.integration.http1.proxying import GET, Upstream, eventually, proxying


async def test_connect_without_a_descriptor_is_a_503_and_not_held_against_the_endpoint() -> None:
    async with proxying(Upstream()) as proxy:
        clients = [await proxy.client() for _ in range(20)]
        await eventually(lambda: proxy.plane.clients.accepted == 20)
        with no_descriptors_left():
            for client in clients:
                client.send(GET)
                answer = await client.answer()
                assert answer.startswith(b"HTTP/1.1 503 "), answer
                assert b"\r\nRetry-After: " in answer
        for client in clients:  # as many failures would have opened the breaker
            client.send(GET)
            assert (await client.answer()).endswith(b"ok")
        counts = proxy.counts("v1")
        assert counts.in_flight == 0
        assert "connect" not in counts.attempts
        assert not any(judged.errors for judged in counts.judged.values())
