"""What a narrow terminal shows: lines broken between words, tables without broken ones."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gateway.cli import show, terminal
from gateway.cli.text import folded

URL = "http://127.0.0.1:4201/rollouts/37538557-0abc-40ce-baca-fdb8c4e6d259"


def test_a_line_is_broken_between_words_and_goes_on_indented() -> None:
    assert folded("one two three", 80) == "one two three"
    assert folded("  the evidence is 174 to 1 that it is worse", 30) == (
        "  the evidence is 174 to 1\n  that it is worse"
    )
    assert folded("the evidence is 174 to 1 that it is worse", 30) == (
        "the evidence is 174 to 1 that\n  it is worse"
    )


def test_what_is_to_be_copied_stays_in_one_piece() -> None:
    said = folded(f"its page, for good: {URL}: `gateway get shop --watch` watches it", 40)
    assert URL in said.splitlines()[1]
    assert "`gateway get shop --watch`" in said


@given(st.lists(st.text("abc-:`", min_size=1, max_size=30), max_size=12), st.integers(20, 90))
def test_folding_loses_nothing(words: list[str], columns: int) -> None:
    assert folded(" ".join(words), columns).split() == words


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Console:
    screen = Console(width=60, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(terminal, "console", lambda: screen)
    return screen


def test_a_narrow_table_breaks_no_word(narrow: Console, made: Any) -> None:
    """It was `productio` and `n`, and `VERSIO` and `N`."""
    services = made.glance(made.seen(), made.seen(), deployment=made.deployment())
    with narrow.capture() as captured:
        terminal.draw_once(terminal.overview_lines(services, everything=False))
        rows = [show._top_row(*each) for each in show.sorted_versions(services, "rate")]
        narrow.print(terminal.fitting(show.TOP_COLUMNS, rows, show.FIRST_TO_GO))
    words = captured.get().split()
    assert {"VERSION", "SHARE", "HEALTH", "RATE/s", "ERRORS", "healthy"} <= set(words)
