"""That somebody is in charge again after deaths and lapses, checked by Spin in every order of them."""

from functools import partial
from pathlib import Path

import pytest

from tests.simulation.spin import build, errors_in, errors_of, needs_spin

CLAIMS = ("led_again", "written_again")
pytestmark = needs_spin
takeover = partial(errors_of, "takeover.pml")


def test_somebody_leads_again_and_writes_after_two_deaths_and_a_lapse(tmp_path: Path) -> None:
    """Two lapses were checked once, too: that takes half a minute."""
    build("takeover.pml", tmp_path, "KILLS=2", "LAPSES=1")
    assert {claim: errors_in(tmp_path, claim) for claim in CLAIMS} == dict.fromkeys(CLAIMS, 0)


@pytest.mark.parametrize(
    ("bug", "claim"),
    [
        ("BUG_LAPSE", "led_again"),
        ("BUG_FREE", "led_again"),
        ("BUG_AGAIN", "led_again"),
        ("BUG_LATE", "written_again"),
    ],
)
def test_each_thing_relied_on_left_out_is_found(tmp_path: Path, bug: str, claim: str) -> None:
    assert takeover(tmp_path, claim, bug, "KILLS=1", "LAPSES=1") > 0
