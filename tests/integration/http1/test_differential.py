"""The same bytes to the gateway and to the peers that are installed (see bench/differential.py)."""

from bench import differential
from bench.differential_cases import CASES
from bench.peers import contestants, workspace


async def test_gateway_is_never_alone_in_taking_a_request_nor_makes_two_of_one() -> None:
    """No spelling of an end makes a request of a body; what all peers refuse is refused, or explained."""
    with workspace() as folder:
        readings = await differential.compare(contestants("gateway,haproxy,nginx"), folder)
    assert differential.smuggled(readings) == []
    assert differential.laxer(readings) == []
    assert len(readings) == len(CASES) >= 120
    for name in ("length sound", "coding sound", "chunk sound", "target sound", "two in a row"):
        assert all(reading.status == 200 for reading in readings[name].values()), readings[name]
        assert readings[name]["gateway"].asked[-1] == "end"
