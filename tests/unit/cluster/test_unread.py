"""Whatever happens to a database, who follows it ends up with what it holds."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.cluster.unread import ALL, NOTHING, Unread, unread
from gateway.store.records import EVENTS, EVERYTHING, OF_SERVICE, SETTINGS, Change, Changes, Position

SERVICES = ("auth", "blog", "cart")


def change(revision: int, *topics: str, commit: str | None = None, follows: str | None = None) -> Change:
    return Change(
        revision,
        follows if follows is not None else f"c{revision - 1}",
        commit if commit is not None else f"c{revision}",
        topics,
    )


def found(*log: Change, timeline: int = 1, commit: str | None = None) -> Changes:
    last = log[-1]
    return Changes(Position(timeline, last.revision, commit if commit is not None else last.commit), log)


AT_3 = Position(1, 3, "c3")


def test_what_each_commit_says_is_read_once() -> None:
    log = (change(3, EVERYTHING), change(4, OF_SERVICE + "auth", EVENTS), change(5), change(6, SETTINGS))
    assert unread(AT_3, found(*log)) == Unread(services=frozenset({"auth"}), settings=True, events=True)
    assert unread(AT_3, found(change(3), change(4))) == NOTHING
    assert not NOTHING
    assert ALL


def test_who_is_where_the_store_is_reads_nothing() -> None:
    assert unread(AT_3, Changes(AT_3, ())) == NOTHING


def test_who_has_read_nothing_reads_everything() -> None:
    assert unread(None, found(change(0, commit=""))) == ALL


def test_a_deletion_has_everything_read() -> None:
    assert unread(AT_3, found(change(3), change(4, EVERYTHING))) == ALL


def test_another_timeline_has_everything_read() -> None:
    assert unread(AT_3, found(change(3), change(4), timeline=2)) == ALL


def test_revisions_taken_back_have_everything_read() -> None:
    assert unread(AT_3, found(change(2))) == ALL


def test_the_same_revision_of_another_commit_has_everything_read() -> None:
    assert unread(AT_3, found(change(3, commit="other"))) == ALL
    assert unread(AT_3, found(change(3, commit="other"), change(4))) == ALL


def test_a_log_that_was_pruned_has_everything_read() -> None:
    assert unread(AT_3, found(change(5), change(6))) == ALL
    assert unread(AT_3, found(change(3), change(5))) == ALL


def test_a_commit_without_a_row_in_the_log_has_everything_read() -> None:
    """An older release writes none; what follows it says so."""
    assert unread(AT_3, found(change(3), commit="unlogged")) == ALL
    assert unread(AT_3, found(change(3), change(4, follows="unlogged"))) == ALL


class Database:
    """What a database does to its rows, its log and itself."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(SERVICES, 0)
        self.tokens = 0
        self.log = [change(0, EVERYTHING, commit="")]
        self.timeline = 1
        self.commit = ""

    def copy(self) -> "Database":
        other = Database()
        other.values, other.tokens, other.log = dict(self.values), self.tokens, list(self.log)
        other.timeline, other.commit = self.timeline, self.commit
        return other

    def changes(self, since: int) -> Changes:
        newest = self.log[-1].revision
        log = tuple(each for each in self.log if each.revision >= min(since, newest))[:5]
        return Changes(Position(self.timeline, newest, self.commit), log)


class Following(RuleBasedStateMachine):
    """Commits, failovers, backups, prunings, older releases; a follower looks at any time."""

    @initialize()
    def begin(self) -> None:
        self.now = Database()
        self.kept = self.now.copy()
        self.count = 0
        self.applied: Position | None = None
        self.memory: dict[str, int] = {}
        self.tokens = 0

    def committed(self, *topics: str, is_logged: bool = True) -> None:
        self.count += 1
        follows, self.now.commit = self.now.commit, f"m{self.count}"
        if is_logged:
            revision = self.now.log[-1].revision + 1
            self.now.log.append(Change(revision, follows, self.now.commit, topics))

    @rule(names=st.sets(st.sampled_from(SERVICES)), also_tokens=st.booleans())
    def commit(self, names: set[str], also_tokens: bool) -> None:
        self.count += 1
        for name in names:
            self.now.values[name] = self.count
        if also_tokens:
            self.now.tokens = self.count
        topics = [OF_SERVICE + name for name in sorted(names)] + [SETTINGS] * also_tokens
        self.committed(*topics)

    @rule()
    def delete(self) -> None:
        self.now.values["cart"] = -1
        self.committed(EVERYTHING)

    @rule(name=st.sampled_from(SERVICES))
    def commit_of_an_older_release(self, name: str) -> None:
        self.count += 1
        self.now.values[name] = self.count
        self.committed(is_logged=False)

    @rule()
    def replicate(self) -> None:
        self.kept = self.now.copy()

    @rule()
    def fail_over(self) -> None:
        """To a member that lags behind, on a timeline that nobody has seen."""
        self.count += 1
        self.now = self.kept.copy()
        self.now.timeline = self.count + 1

    @rule()
    def put_a_backup_back(self) -> None:
        """The files as they were, timeline and all."""
        self.now = self.kept.copy()

    @rule(rows=st.integers(1, 4))
    def prune(self, rows: int) -> None:
        self.now.log = self.now.log[min(rows, len(self.now.log) - 1) :]

    @rule()
    def look(self) -> None:
        changes = self.now.changes(self.applied.revision if self.applied else 0)
        what = unread(self.applied, changes)
        names: Any = SERVICES if what.everything else what.services
        for name in names:
            self.memory[name] = self.now.values[name]
        if what.everything or what.settings:
            self.tokens = self.now.tokens
        self.applied = changes.at

    @invariant()
    def who_is_there_has_what_is_there(self) -> None:
        at = self.now.changes(0).at
        if self.applied == at:
            assert self.memory == self.now.values
            assert self.tokens == self.now.tokens


TestFollowing = Following.TestCase


@given(st.integers(0, 9), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_a_log_with_a_gap_is_never_taken_for_whole(at: int, revisions: list[int]) -> None:
    log = tuple(change(each, SETTINGS) for each in revisions)
    is_whole = revisions == list(range(at, at + len(revisions)))
    what = unread(Position(1, at, f"c{at}"), found(*log))
    assert (what != ALL) == (is_whole or at == revisions[-1])
