"""Whether a gateway has the store, and what it says of it."""

from gateway.control.isolation import Isolation


class Given:
    """An isolation with a hand-moved clock."""

    def __init__(self, limit_s: float) -> None:
        self.now, self.told, self.carried = 1000.0, list[float](), list[str]()
        self.isolation = Isolation(limit_s, self.told.append, lambda: self.carried, clock=lambda: self.now)


def test_who_shares_its_store_with_nobody_is_never_isolated() -> None:
    given = Given(0.0)
    given.now += 1e6
    assert given.isolation.left_s is None
    assert given.isolation.trouble == ""


def test_a_gateway_says_for_how_long_it_is_cut_off_and_what_is_served_by_old_versions() -> None:
    given = Given(30.0)
    assert "since it was started" in given.isolation.trouble
    given.isolation.in_touch(given.now - 10)
    assert given.told == [990.0]
    assert given.isolation.left_s == 20
    given.now += 20
    assert given.isolation.trouble == ""
    given.now, given.carried = given.now + 2, ["auth", "shop"]
    assert given.isolation.trouble.startswith("isolated: without the store for 32 s; ")
    assert given.isolation.trouble.endswith(": auth, shop")
    given.isolation.in_touch(given.now)
    assert given.isolation.trouble == ""
