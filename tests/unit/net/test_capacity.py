"""Places for connections: how many there are, who has them, who waits for one."""

import pytest

from gateway.net.capacity import Capacity, client_of


def test_full_when_all_places_are_taken() -> None:
    capacity = Capacity(2)
    first, _ = capacity.take(), capacity.take()
    assert capacity.is_full
    first.leave()
    assert not capacity.is_full
    assert capacity.open == 1


def test_place_is_given_back_only_once() -> None:
    capacity = Capacity(5, per_client=1)
    place = capacity.take()
    assert place.claim("192.0.2.1")
    other = capacity.take()
    assert other.claim("192.0.2.2")
    place.leave()
    place.leave()
    assert capacity.open == 1
    other.leave()
    assert capacity.open == 0


def test_client_with_its_share_is_refused_until_one_ends() -> None:
    capacity = Capacity(10, per_client=2)
    places = [capacity.take() for _ in range(3)]
    assert [place.claim("192.0.2.1") for place in places] == [True, True, False]
    places[2].leave()
    assert capacity.take().claim("192.0.2.2")
    places[0].leave()
    assert capacity.take().claim("192.0.2.1")
    assert capacity.accepted == 4


def test_proxys_places_are_nobodys_share_but_what_it_brings_is() -> None:
    capacity = Capacity(10, per_client=1)
    assert all(capacity.take().claim("192.0.2.1", is_proxy=True) for _ in range(3))
    share = capacity.share("198.51.100.1")
    assert share is not None
    assert capacity.share("198.51.100.1") is None
    assert not capacity.take().claim("198.51.100.1")
    share.leave()
    assert capacity.take().claim("198.51.100.1")
    assert (capacity.open, capacity.accepted) == (5, 4)


def test_zero_means_no_limit_per_client() -> None:
    capacity = Capacity(1000)
    assert all(capacity.take().claim("192.0.2.1") for _ in range(500))


def test_unix_clients_share_no_address() -> None:
    capacity = Capacity(1000, per_client=1)
    assert all(capacity.take().claim("") for _ in range(5))


def test_waiting_listeners_are_woken_once_when_there_is_room() -> None:
    capacity = Capacity(1)
    place = capacity.take()
    woken: list[str] = []
    capacity.when_room(lambda: woken.append("a"))
    forgotten = lambda: woken.append("b")  # noqa: E731
    capacity.when_room(forgotten)
    capacity.forget(forgotten)
    place.leave()
    capacity.take().leave()
    assert woken == ["a"]


def test_wider_limits_wake_too_and_narrower_ones_wait() -> None:
    capacity = Capacity(2)
    places = [capacity.take(), capacity.take()]
    woken: list[int] = []
    capacity.when_room(lambda: woken.append(1))
    capacity.set_limits(1, 0)
    places[0].leave()
    assert woken == []
    capacity.set_limits(3, 0)
    assert woken == [1]


def test_waiter_that_finds_no_room_may_wait_again() -> None:
    capacity = Capacity(1)
    woken: list[int] = []

    def wake() -> None:
        woken.append(1)
        capacity.take()
        capacity.when_room(wake)

    first = capacity.take()
    capacity.when_room(wake)
    first.leave()
    assert woken == [1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_client_is_an_ipv4_address_or_an_ipv6_network(one: str, other: str, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same
