"""Gateways that come back: nobody goes forward before what nobody judged is stored as rolled back."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.rollout.isolation import Lease, Then, on_return

LEASE_S: Final = 4
ISOLATION_S: Final = 10
NODES: Final = ("a", "b", "c")


class Row:
    """The lease, as the statements of store/postgres/lease.py change it; and what is true besides."""

    def __init__(self) -> None:
        self.now = 0
        self.holder = ""
        self.renewed_at = self.lapses_at = 0
        self.vacated_at: int | None = None
        self.judged_at = 0
        """When somebody was last in charge, and nothing was left to store."""

    def hear(self, node: str) -> None:
        """A node renews the lease, or takes one that has lapsed, if the row lets it."""
        if self.holder == node or self.lapses_at <= self.now:
            if self.lapses_at <= self.now and self.vacated_at is None:
                self.vacated_at = self.renewed_at
            self.holder, self.renewed_at, self.lapses_at = node, self.now, self.now + LEASE_S
            if self.vacated_at is None:
                self.judged_at = self.now

    def settle(self, node: str) -> None:
        """The one in charge has stored what follows."""
        if self.holder == node:
            self.vacated_at = None
            self.judged_at = self.renewed_at

    def seen_by(self, node: str) -> Lease:
        vacant_s = None if self.vacated_at is None else float(self.renewed_at - self.vacated_at)
        return Lease(self.now, self.lapses_at > self.now, self.holder == node, vacant_s)


ACTS: Final = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 15)),
    st.tuples(st.sampled_from(["hear", "settle", "look"]), st.sampled_from(NODES)),
)


@given(st.lists(ACTS, max_size=40))
def test_whoever_goes_on_does_so_by_what_somebody_in_charge_has_stored(
    acts: list[tuple[str, int | str]],
) -> None:
    row = Row()
    owed_since: int | None = None
    """When a time in which nobody was in charge, long enough to go back in, began; None: all is stored."""
    for what, argument in acts:
        if isinstance(argument, int):
            row.now += argument
            continue
        node = argument
        then = on_return(row.seen_by(node), ISOLATION_S)
        if what == "hear":
            was, owed = row.judged_at, owed_since
            row.hear(node)
            if row.holder == node and owed is None and row.now - was > ISOLATION_S:
                owed_since = was
        elif what == "settle":
            assert then is not Then.ROLL_BACK or row.holder == node
            if then is Then.ROLL_BACK:
                assert owed_since is not None, "only what nobody judged is rolled back"
            if row.holder == node and row.lapses_at > row.now:
                row.settle(node)
                owed_since = None
        else:
            if then is Then.FOLLOW:
                assert owed_since is None, "nobody goes forward before that is stored"
                assert row.lapses_at > row.now
            if then is Then.ROLL_BACK:
                assert row.holder == node


def test_each_case() -> None:
    assert on_return(Lease(0.0, is_held=False), 30) is Then.WAIT
    assert on_return(Lease(0.0), 30) is Then.FOLLOW
    assert on_return(Lease(0.0, vacant_s=99.0), 30) is Then.WAIT, "whoever is in charge has yet to store it"
    assert on_return(Lease(0.0, vacant_s=5.0), 30) is Then.WAIT
    assert on_return(Lease(0.0, is_ours=True, vacant_s=30.0), 30) is Then.FOLLOW
    assert on_return(Lease(0.0, is_ours=True, vacant_s=30.1), 30) is Then.ROLL_BACK
