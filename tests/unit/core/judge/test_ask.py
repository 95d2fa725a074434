"""Asking the old version: when, what it proves, and that it proves nothing where nothing is."""

import random
import statistics

import pytest

from gateway.core.judge.ask import Ask, Block, counted, drawn, in_force, is_over, tries_again
from gateway.core.judge.evidence import end_ask, set_share
from gateway.core.judge.tallies import Tally

from .trial import Trial


def baking(**rules: object) -> Trial:
    """A new version with all the traffic, of whose old one is known that it fails one request in 200."""
    return Trial(0, **rules).known().at(100).feed(new=(10, 0), seconds=60)


@pytest.mark.parametrize(("errors", "within"), [(2, 4), (5, 2)])
def test_errors_the_record_does_not_explain_lead_to_an_ask_and_to_no_abort(errors: int, within: int) -> None:
    trial = baking()
    for _ in range(within):
        trial.feed(new=(10, errors))
        if trial.decision.verdict == "ask":
            break
    assert trial.verdict == ("ask", "suspicion")


def test_below_half_of_the_traffic_nothing_is_asked() -> None:
    trial = Trial(0).known().at(40).feed(new=(4, 1), old=(6, 1), seconds=30)
    assert trial.decision.verdict in ("hold", "advance")


def test_errors_both_have_at_half_of_the_traffic_raise_no_suspicion() -> None:
    trial = Trial(0).known().at(50).feed(new=(5, 1), old=(5, 1), seconds=30)
    assert trial.decision.verdict in ("hold", "advance")


def test_what_the_record_explains_leads_to_nothing() -> None:
    rng = random.Random(1)
    trial = baking()
    for _ in range(600):
        trial.feed(new=(10, sum(rng.random() < 0.005 for _ in range(10))))
        assert trial.decision.verdict == "advance"


def test_without_a_record_a_failing_version_is_asked_about_all_the_same() -> None:
    assert Trial(100).feed(new=(10, 6), seconds=5).decision.verdict == "ask"


def test_where_the_old_version_is_not_usable_a_person_is_asked() -> None:
    """Guards: a new version that failed nearly everything was held silently, for as long as the bake."""
    trial = baking().feed(new=(10, 5), seconds=20, old_usable=False)
    assert trial.verdict == ("pause", "nobody")
    assert trial.decision.reason.startswith("Nowhere to go back to, the old version is not usable. ")


def test_errors_of_the_warm_up_clear_nobody() -> None:
    """Guards: they are not held against the new version, and so were taken to have come to both alike."""
    trial = Trial(0, warm_up_s=10.0).known().at(100).feed(new=(10, 6), seconds=3).ask()
    trial.feed(new=(3, 2), old=(7, 0), seconds=5)
    assert trial.verdict == ("hold", "asking")
    assert trial.feed(new=(3, 2), old=(7, 0), seconds=60).decision.verdict == "abort"


def test_an_old_version_that_goes_meanwhile_ends_the_ask() -> None:
    trial = baking().feed(new=(10, 3), seconds=9).ask().feed(new=(2, 0), old=(7, 0), old_usable=False)
    assert trial.verdict == ("cleared", "nobody")


def test_an_ask_that_mixes_convicts_by_fresh_evidence() -> None:
    trial = Trial(0).known().at(10).feed(old=(90, 1), seconds=200)
    trial.at(100).feed(new=(10, 2), seconds=9).ask()
    while trial.decision.verdict != "abort":
        trial.feed(new=(3, 1), old=(7, 0))
    assert trial.verdict == ("abort", "ask")
    assert trial.decision.limit == 1333.3


def test_what_fails_alike_is_cleared_once_it_is_over() -> None:
    trial = baking().feed(new=(10, 2), seconds=9).ask().feed(new=(3, 1), old=(7, 2), seconds=30)
    assert trial.verdict == ("hold", "asking")
    trial.feed(new=(3, 0), old=(7, 0), seconds=100)
    assert trial.verdict == ("cleared", "cleared")
    assert "it fails alike" in trial.decision.reason


def test_errors_that_do_not_come_again_clear_it() -> None:
    trial = baking().feed(new=(10, 2), seconds=9).ask().feed(new=(3, 0), old=(7, 0), seconds=100)
    assert trial.verdict == ("cleared", "cleared")
    assert "not reproduced" in trial.decision.reason


def test_with_too_little_traffic_it_stays_undecided() -> None:
    trial = baking().feed(new=(10, 2), seconds=9).ask().feed(new=(0, 0), old=(1, 0), seconds=200)
    assert trial.verdict == ("pause", "undecided")


def test_the_third_ask_is_the_last_and_each_wants_more_proof() -> None:
    trial = baking()
    for limit in (1333.3, 4000, 8000):
        while trial.decision.verdict != "ask":
            trial.feed(new=(10, 8))
        trial.ask().feed(new=(3, 0), old=(7, 0))
        assert trial.decision.limit == limit
        trial.evidence = end_ask(trial.evidence)
        trial.at(100).feed(new=(10, 0), seconds=90)
    trial.feed(new=(10, 8), seconds=20)
    assert trial.verdict == ("pause", "asks")


def test_what_an_ask_saw_is_the_measure_for_a_minute_only() -> None:
    trial = baking().feed(new=(10, 2), seconds=9).ask().feed(new=(4, 1), old=(12, 3), seconds=10)
    trial.evidence = set_share(end_ask(trial.evidence), 100)
    trial.at(100).feed(new=(10, 2), seconds=60)
    assert trial.decision.verdict != "ask"
    assert trial.feed(new=(10, 2), seconds=30).decision.verdict == "ask"


def test_errors_that_were_found_to_be_shared_do_not_hold_the_step() -> None:
    trial = baking().feed(new=(10, 2), seconds=9).ask().feed(new=(3, 3), old=(7, 7), seconds=10)
    trial.evidence = end_ask(trial.evidence)
    trial.evidence = set_share(trial.evidence, 100)
    assert trial.decision.new_rate > 5
    assert trial.evidence.step_tolerated >= trial.evidence.step_new.errors


# Blocks


def died() -> Trial:
    """A blue-green's new version failed everything for two seconds; the old one works."""
    trial = baking(mixes=False).feed(new=(20, 20), seconds=2)
    assert trial.verdict == ("ask", "dead")
    trial.ask().feed(old=(10, 0), seconds=9)
    assert trial.verdict == ("draw", "block")
    return trial


def test_a_dead_version_is_convicted_once_it_fails_again_and_the_old_one_works() -> None:
    trial = died()
    assert tries_again(trial.evidence.ask)  # type: ignore[arg-type]
    assert trial.draw(is_new=True).feed(new=(10, 10), seconds=9).verdict == ("abort", "dead")
    assert trial.evidence.new.errors <= 70, "at once"


def test_two_seconds_in_which_all_failed_whatever_served_convict_nobody() -> None:
    """Guards: a short outage that both share was over by the switch back, and the new version convicted."""
    trial = died().draw(is_new=True).feed(new=(10, 0), seconds=10)
    assert trial.verdict == ("draw", "block")
    ask = trial.evidence.ask
    assert ask is not None
    assert ask.statistic == 1.0, "what no coin chose proves nothing"


def test_an_old_one_that_fails_too_convicts_nobody() -> None:
    trial = baking(mixes=False).feed(new=(20, 20), seconds=2).ask().feed(old=(10, 10), seconds=9)
    assert trial.verdict == ("draw", "block")


def test_what_ends_late_counts_for_the_block_it_was_chosen_in() -> None:
    ask = Ask(number=1, mixes=False, rate=0.01, suspected=0.2)
    for generation, is_new in ((5, True), (6, False)):
        ask = in_force(drawn(ask, is_new=is_new), generation)
        for _ in range(3):
            ask = counted(ask, 1.0, {generation: Tally(10, 0)} if is_new else {}, {6: Tally(10, 0)})
    before = ask.blocks[0].tally
    ask = counted(ask, 1.0, {5: Tally(3, 3)}, {})
    assert ask.blocks[0].tally == before.plus(3, 3)
    assert ask.blocks[1].tally == Tally(20, 0), "the first second is dropped"


def test_a_block_of_many_errors_is_over_at_once() -> None:
    ask = in_force(drawn(Ask(number=1, mixes=False, rate=0.01, suspected=0.2), is_new=True), 5)
    for errors in (0, 2):
        ask = counted(ask, 1.0, {5: Tally(10, errors)}, {})
        assert not is_over(ask.block)
    assert is_over(counted(ask, 1.0, {5: Tally(10, 4)}, {}).block)


def test_a_block_lasts_longer_where_there_is_little_traffic() -> None:
    assert is_over(Block(True, 1, 10.0, Tally(90)))
    assert not is_over(Block(True, 1, 20.0, Tally(9)))
    assert is_over(Block(True, 1, 30.0, Tally(9)))


@pytest.mark.parametrize("pattern", ["constant", "outage that ends", "bursts"])
def test_if_the_versions_are_alike_blocks_are_worth_one_on_average(pattern: str) -> None:
    """Whatever happens in a block, as long as it does not depend on the coin: Ville's inequality holds."""
    rng = random.Random(pattern)
    values, reached = [], 0
    for _ in range(4_000):
        ask = Ask(number=1, mixes=False, rate=0.01, suspected=0.2)
        highest = 0.0
        for index in range(12):
            rate = {
                "constant": 0.01,
                "outage that ends": 0.6 if index < 4 else 0.01,
                "bursts": 0.3 if rng.random() < 0.3 else 0.0,
            }[pattern]
            ask = in_force(drawn(ask, is_new=rng.random() < 0.25), index)
            errors = sum(rng.random() < rate for _ in range(20))
            tally = {index: Tally(20, errors)}
            ask = counted(counted(ask, 1.0, {}, {}), 1.0, tally, tally)
            highest = max(highest, ask.statistic)
        values.append(ask.statistic)
        reached += highest >= 20
    assert statistics.fmean(values) <= 1 + 4 * statistics.stdev(values) / len(values) ** 0.5
    assert reached <= 4_000 / 20
