"""The loads of `bench proxy` are what they say: a load that repeats itself would flatter who remembers."""

import httptools
import pytest

from bench.profiles import COUNT, PROFILES, profile


@pytest.mark.parametrize("name", sorted(PROFILES.keys() - {"repeats"}))
def test_no_two_requests_are_alike(name: str) -> None:
    requests = profile(name).requests
    assert len(requests) == COUNT
    assert len({each.partition(b"\r\n")[0] for each in requests}) == COUNT
    assert len(set(requests)) == COUNT


def test_half_of_the_browsers_requests_bring_an_id() -> None:
    with_id = sum(b"X-Request-Id" in each for each in profile("browser").requests)
    assert 0.45 < with_id / COUNT < 0.55


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_requests_are_whole_and_well_formed(name: str) -> None:
    class Whole:
        count = 0

        def on_message_complete(self) -> None:
            self.count += 1

    whole = Whole()
    parser = httptools.HttpRequestParser(whole)
    requests = profile(name).requests[:500]
    for each in requests:
        parser.feed_data(each)
    assert whole.count == len(requests)
