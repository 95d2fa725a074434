"""The judge: what it acts on, and what it leaves alone."""

import math
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.judge.buckets import bucket_of
from gateway.core.judge.evidence import Evidence, begin_step, forgive, seeded
from gateway.core.judge.judge import decide
from gateway.core.judge.rules import Rules
from gateway.core.judge.window import WHOLE, Cell, Window

from .trial import Trial


def test_before_the_weights_are_live_nothing_advances() -> None:
    decision = decide(begin_step(Evidence(), 10), Rules())
    assert (decision.verdict, decision.gate) == ("hold", "weights")


def test_no_traffic_is_neither_success_nor_failure() -> None:
    trial = Trial().feed(seconds=10_000)
    assert trial.verdict == ("hold", "requests")
    assert "0 of 20" in trial.decision.reason


def test_enough_good_requests_advance() -> None:
    trial = Trial().feed(new=(1, 0), old=(9, 0), seconds=19)
    assert trial.verdict == ("hold", "requests")
    trial.feed(new=(1, 0), old=(9, 0))
    assert trial.verdict == ("advance", "clear")
    assert trial.decision.new_answers == 20


def test_requests_are_counted_anew_in_each_step_and_the_statistic_is_not() -> None:
    trial = Trial().feed(new=(1, 0), old=(9, 1), seconds=30)
    before = trial.evidence.comparison.value
    assert before < 0.9
    trial.at(50)
    assert trial.verdict == ("hold", "requests")
    assert trial.evidence.comparison.value == before


def test_answers_chosen_under_earlier_weights_are_not_the_steps() -> None:
    trial = Trial().at(50)
    trial.see(Window(seconds=1.0, new=(Cell(trial.generation - 1, 1000, 40),)))
    assert trial.decision.new_answers == 0
    assert trial.evidence.new.answers == 40


def test_errors_that_fall_on_the_new_version_beyond_its_share_abort() -> None:
    trial = Trial()
    for second in range(400):
        trial.feed(new=(1, second % 10 == 0), old=(9, second % 20 == 0))
        if trial.decision.verdict == "abort":
            break
    assert trial.verdict == ("abort", "comparison")
    assert trial.decision.statistic >= trial.decision.limit == 117.6
    assert "The new version fails 1" in trial.decision.reason


@pytest.mark.parametrize("rate", [0.005, 0.08, 0.6])
@pytest.mark.parametrize("percent", [10, 50, 90])
def test_errors_shared_fairly_never_abort(percent: int, rate: float) -> None:
    """Both at 8 % were once paused by the threshold alone: it holds only beyond the old version's own."""
    rng = random.Random(f"{percent}:{rate}")
    trial = Trial(0).known().at(percent)
    for _ in range(600):
        errors = [sum(rng.random() < rate for _ in range(n)) for n in (percent // 10, 10 - percent // 10)]
        trial.feed(new=(percent // 10, errors[0]), old=(10 - percent // 10, errors[1]))
        assert trial.decision.verdict != "abort"
    assert trial.decision.gate != "rate"


def test_a_release_that_fails_less_than_the_old_version_is_not_held() -> None:
    trial = Trial(50)
    for second in range(200):
        trial.feed(new=(5, second % 3 == 0), old=(5, 1))
    assert trial.verdict == ("advance", "clear")


def test_a_rate_over_both_the_threshold_and_the_old_versions_holds() -> None:
    trial = Trial(10, false_alarm_rate=1e-30)
    for second in range(200):
        trial.feed(new=(2, second % 4 == 0), old=(18, second % 2))
    assert trial.verdict == ("hold", "rate")


def test_an_error_no_other_version_could_have_had_is_no_evidence() -> None:
    trial = Trial(100).feed(new=(10, 10), seconds=3)
    assert trial.evidence.comparison.value == pytest.approx(1)


def test_a_statistic_short_of_proof_holds() -> None:
    trial = Trial().feed(new=(1, 0), old=(9, 0), seconds=60).feed(new=(3, 2), old=(9, 0))
    assert trial.verdict == ("hold", "statistic")
    assert "Suspicious" in trial.decision.reason


def test_the_culprit_is_named_if_it_is_one_route() -> None:
    trial = Trial()
    for second in range(1_000):
        trial.feed(old=(9, 1), new=(1, 0), kind=f"500|GET /api/v{second % 8}")
        if second % 5 == 4:
            trial.feed(new=(1, 1), kind="500|POST /pay")
        if trial.decision.verdict == "abort":
            break
    assert trial.verdict == ("abort", "comparison")
    assert trial.decision.culprit == "POST /pay"
    assert trial.decision.reason.endswith("; only POST /pay.")


# Warm-up


def test_errors_of_a_cold_start_alone_do_not_convict() -> None:
    trial = Trial(warm_up_s=10.0).feed(new=(10, 5), old=(90, 0), seconds=10)
    assert trial.verdict == ("hold", "warming")
    trial.feed(new=(10, 0), old=(90, 0), seconds=60)
    assert trial.decision.verdict == "hold"


def test_errors_that_go_on_after_it_do() -> None:
    trial = Trial(warm_up_s=10.0).feed(new=(10, 5), old=(90, 0), seconds=12)
    assert trial.verdict == ("abort", "comparison")


def test_a_dead_version_is_not_given_a_warm_up() -> None:
    trial = Trial(warm_up_s=10.0).feed(new=(10, 10), old=(90, 0), seconds=3)
    assert trial.verdict == ("abort", "comparison")


# Unusable


def test_out_for_longer_than_a_breakers_reset_while_the_old_version_works_aborts() -> None:
    trial = Trial().feed(old=(10, 0), seconds=61, new_usable=False)
    assert trial.decision.verdict == "hold"
    trial.feed(old=(10, 0), seconds=2, new_usable=False)
    assert trial.verdict == ("abort", "unavailable")


def test_trial_calls_that_fail_are_no_recovery_and_one_good_answer_is() -> None:
    trial = Trial().feed(old=(10, 0), seconds=40, new_usable=False)
    trial.feed(new=(1, 1), old=(9, 0)).feed(old=(10, 0), seconds=25, new_usable=False)
    assert trial.verdict == ("abort", "unavailable")
    trial = Trial().feed(old=(10, 0), seconds=40, new_usable=False)
    trial.feed(new=(1, 0), old=(9, 0)).feed(old=(10, 0), seconds=40, new_usable=False)
    assert trial.decision.verdict == "hold"


def test_outages_shorter_than_a_reset_are_waited_out() -> None:
    """They once aborted after ten seconds: 62 of 100 equal versions whose outages lasted three."""
    trial = Trial()
    for _ in range(30):
        trial.feed(old=(10, 0), seconds=15, new_usable=False).feed(new=(1, 0), old=(9, 0), seconds=5)
        assert trial.decision.verdict != "abort"


def test_both_out_is_not_the_new_versions_doing() -> None:
    trial = Trial().feed(seconds=300, new_usable=False, old_usable=False)
    assert trial.decision.verdict == "hold"
    trial = Trial().feed(old=(10, 8), seconds=300, new_usable=False)
    assert trial.decision.verdict == "hold"


# Shifts and latency


def test_more_4xx_answers_than_its_share_ask_a_person() -> None:
    trial = Trial().feed(new=(2, 1), old=(18, 1), seconds=60, kind="404|GET /:id")
    assert trial.verdict == ("pause", "shift")
    assert trial.decision.limit == 1000
    assert trial.evidence.new.errors == 0


def test_a_4xx_shift_may_abort_and_4xx_may_be_errors() -> None:
    fed = {"new": (2, 1), "old": (18, 1), "seconds": 60, "kind": "404"}
    assert Trial(on_shift="abort").feed(**fed).verdict == ("abort", "shift")  # type: ignore[arg-type]
    assert Trial(errors=("4xx",)).feed(**fed).verdict == ("abort", "comparison")  # type: ignore[arg-type]


def test_4xx_answers_both_have_more_of_ask_nobody() -> None:
    trial = Trial().feed(new=(2, 1), old=(18, 9), seconds=300, kind="404")
    assert trial.verdict == ("advance", "clear")


def _timed(share: int, answers: int, us: int) -> Cell:
    return Cell(1, share, answers, latency={bucket_of(us): answers})


def _drawn(share: int, times_us: list[int]) -> tuple[Cell, ...]:
    return (Cell(1, share, len(times_us), latency=Counter(map(bucket_of, times_us))),)


def _times(rng: random.Random, median_us: float, count: int) -> list[int]:
    return [int(rng.lognormvariate(math.log(median_us), 0.5)) for _ in range(count)]


def _run_timed(new_us: int, old_us: int, seconds: int, **rules: object) -> Trial:
    trial = Trial(50, **rules)
    for _ in range(60):
        trial.see(Window(seconds=1.0, old=(_timed(5000, 5, 10_000),), new=(_timed(5000, 5, 10_000),)))
    for _ in range(seconds):
        trial.see(Window(seconds=1.0, old=(_timed(5000, 5, old_us),), new=(_timed(5000, 5, new_us),)))
        if trial.decision.verdict in ("abort", "pause"):
            break
    return trial


def test_a_version_that_turns_slow_asks_a_person_within_seconds() -> None:
    trial = _run_timed(new_us=40_000, old_us=10_000, seconds=15)
    assert trial.verdict == ("pause", "latency")
    assert "ms" in trial.decision.reason


def test_slowness_may_abort() -> None:
    assert _run_timed(40_000, 10_000, 60, on_latency="abort").verdict == ("abort", "latency")


@pytest.mark.parametrize(("new_us", "old_us"), [(40_000, 40_000), (12_000, 10_000), (5_000, 10_000)])
def test_slowness_both_share_or_within_the_ratio_does_not(new_us: int, old_us: int) -> None:
    assert _run_timed(new_us, old_us, seconds=60).decision.verdict == "advance"


def test_a_version_within_the_ratio_is_not_slow_where_both_slow_down() -> None:
    """What the old one did before is no measure then: with one bound for both, 1.3 times slower was slow."""
    rng = random.Random(5)
    trial = Trial(50)
    trial.see(Window(seconds=1.0, old=_drawn(5000, _times(rng, 50_000, 9_000))))
    for second in range(400):
        us = 50_000 * 2 ** (second / 400)
        old, new = _times(rng, us, 5), _times(rng, 1.3 * us, 5)
        trial.see(Window(seconds=1.0, old=_drawn(5000, old), new=_drawn(5000, new)))
        assert trial.decision.verdict != "pause"
    assert trial.evidence.slow is not None
    assert trial.evidence.slow.rate.value > 1000


def test_slowness_that_a_whole_interval_no_longer_shows_holds_nothing_up() -> None:
    trial = _run_timed(40_000, 10_000, 60, interval_s=30.0)
    for second in range(40):
        assert (trial.decision.verdict == "pause") is (second < 30)
        trial.see(Window(seconds=1.0, old=(_timed(5000, 5, 10_000),), new=(_timed(5000, 5, 10_000),)))
    assert trial.decision.verdict == "advance"


def test_latency_is_not_judged_without_a_ratio() -> None:
    assert _run_timed(40_000, 10_000, 60, max_latency_ratio=None).decision.verdict == "advance"


# The harm budget


def test_a_spent_budget_aborts_and_every_decision_says_what_is_spent() -> None:
    trial = Trial(10, max_failed=10, false_alarm_rate=1e-12).feed(new=(10, 3), old=(90, 1), seconds=2)
    assert "Spent of maxFailedUsers: 5 of 10 failed requests." in trial.decision.reason
    trial.feed(new=(10, 3), old=(90, 1), seconds=4)
    assert trial.verdict == ("abort", "budget")
    assert trial.decision.spent is not None and trial.decision.spent >= 10


def test_failures_the_old_version_has_too_spend_nothing() -> None:
    trial = Trial(50, max_failed=10)
    for _ in range(200):
        trial.feed(new=(5, 1), old=(5, 1))
    assert trial.decision.spent is not None and trial.decision.spent <= 2


def test_the_forecast_says_what_share_the_budget_pays_for() -> None:
    trial = Trial(10, max_failed=10, interval_s=300.0).feed(new=(1, 0), old=(9, 0), seconds=300)
    assert trial.decision.affordable is not None and 10 < trial.decision.affordable < 60
    trial = Trial(10, max_failed=3, interval_s=3000.0).feed(new=(1, 0), old=(9, 0), seconds=100)
    assert trial.verdict == ("hold", "forecast")


# What is known from before


def test_a_rollout_begins_with_what_was_counted_before() -> None:
    evidence = seeded([Cell(1, WHOLE, 100_000, {"500": 3_000}), Cell(2, WHOLE, 5)], Rules())
    assert evidence.record.rate == pytest.approx(0.03, rel=0.1)
    assert evidence.record.answers == 1_000


def test_going_on_in_spite_of_it_begins_the_statistics_anew() -> None:
    trial = Trial().feed(new=(1, 1), old=(9, 0), seconds=60)
    assert trial.decision.verdict == "abort"
    trial.evidence = forgive(trial.evidence)
    trial.feed(new=(1, 0), old=(9, 0), seconds=30)
    assert trial.decision.verdict == "advance"


@pytest.mark.parametrize(
    ("errors", "kind", "counts"),
    [
        (("5xx",), "500", True),
        (("5xx",), "404", False),
        (("4xx",), "404", True),
        (("503",), "503", True),
        (("503",), "500", False),
        (("5xx",), "reset", False),
        (("reset",), "bad_response", True),
        (("abandoned",), "abandoned", True),
        (("5xx",), "abandoned", False),
        (("outcome",), "outcome:payment", True),
        (("outcome:payment",), "outcome:payment", True),
        (("outcome:payment",), "outcome:search", False),
    ],
)
def test_what_counts_is_a_setting(errors: tuple[str, ...], kind: str, counts: bool) -> None:
    assert Rules(errors=errors).is_error(kind) is counts


COUNTS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (max(pair), min(pair)))


@given(st.lists(st.tuples(COUNTS, COUNTS, st.integers(0, WHOLE), st.booleans()), max_size=60))
def test_whatever_comes_the_evidence_can_be_stored_and_a_verdict_read_off_it(
    seconds: list[tuple[tuple[int, int], tuple[int, int], int, bool]],
) -> None:
    trial = Trial(50)
    for new, old, share, usable in seconds:
        trial.feed(new=new, old=old, share=share, new_usable=usable)
        stored = msgspec.json.encode(trial.evidence)
        assert msgspec.json.decode(stored, type=Evidence) == trial.evidence
        assert len(stored) < 10_000
        assert trial.decision.reason.endswith(".")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=60))
def test_without_an_error_nothing_aborts(seconds: list[tuple[int, int]]) -> None:
    trial = Trial()
    for new, old in seconds:
        trial.feed(new=(new, 0), old=(old, 0))
        assert trial.decision.verdict != "abort"


def test_the_commonest_kind_of_error_is_named() -> None:
    trial = Trial(20).feed(new=(10, 1), old=(40, 0), seconds=2, kind="reset")
    trial.feed(new=(10, 4), old=(40, 0), seconds=20, kind="abandoned")
    assert trial.verdict == ("abort", "comparison")
    assert "; its commonest error: abandoned" in trial.decision.reason


def test_one_route_alone_convicts_after_the_warm_up() -> None:
    """Guards: only the whole could bear a warm-up's end out, so one dead path among many stopped nothing."""
    trial = Trial(warm_up_s=10.0)
    for second in range(200):
        for index in range(4):
            trial.feed(new=(10, 0), old=(90, 1), kind=f"500|GET /{(second * 4 + index) % 20}")
        trial.feed(new=(10, 1 if second % 3 == 0 else 0), old=(90, 0), kind="500|POST /pay")
        if trial.decision.verdict == "abort":
            break
    assert trial.verdict == ("abort", "comparison")
    assert trial.decision.culprit == "POST /pay"
    assert trial.evidence.comparison.whole.value < 10


def test_a_cold_start_that_is_over_holds_up_no_advance_at_100_percent() -> None:
    """Guards: at 100 % nothing is compared: what the first seconds left in the comparison stayed for good."""
    trial = Trial(25, warm_up_s=10.0).feed(new=(10, 1), old=(30, 0), seconds=5)
    trial.feed(new=(10, 0), old=(30, 0), seconds=6)
    assert trial.verdict[0] == "hold"
    trial.feed(new=(10, 0), old=(30, 0), seconds=10).at(100).feed(new=(40, 0), seconds=5)
    assert trial.evidence.comparison.value >= 20
    assert trial.verdict == ("advance", "clear")


def test_the_onset_of_a_burst_that_both_see_is_not_suspicious_beside_the_old_version() -> None:
    """Guards: at 100 requests a second the last half minute of the old one hid how the burst began."""
    trial = Trial(0).known(answers=100).at(50).feed(new=(50, 0), old=(50, 0), seconds=30)
    trial.feed(new=(50, 10), old=(50, 10), seconds=20)
    assert trial.decision.verdict != "ask"


def cold_start() -> Trial:
    """A version that failed three of its first eleven requests, one a second; the old one failed none."""
    trial = Trial(10, warm_up_s=10.0)
    for second in range(11):
        trial.feed(new=(1, second in (2, 5, 8)), old=(9, 0))
    assert trial.verdict == ("hold", "warming")
    return trial


def test_an_error_soon_after_the_warm_up_bears_out_what_was_seen_in_it() -> None:
    """Guards: it took as much as if the warm-up had taught nothing: 20 % of errors were found in 23 s."""
    trial = cold_start().feed(new=(1, 0), old=(9, 0), seconds=3).feed(new=(1, 1), old=(9, 0))
    assert trial.verdict == ("abort", "comparison")


def test_one_error_long_after_a_cold_start_is_none_of_its_consequences() -> None:
    trial = cold_start().feed(new=(1, 0), old=(9, 0), seconds=30).feed(new=(1, 1), old=(9, 0))
    assert trial.verdict[0] == "hold"
    assert trial.evidence.comparison.value > 117.6


def test_the_warm_up_lasts_from_the_end_of_the_first_answers_window() -> None:
    """Guards: an answer late in a window is younger than the window: its tenth second is not warm."""
    trial = Trial(10, warm_up_s=10.0)
    for _ in range(11):
        trial.feed(new=(1, 1), old=(9, 0))
    assert trial.evidence.warmed.value == 1
    assert trial.feed(new=(1, 1), old=(9, 0)).evidence.warmed.value > 1


def test_without_a_warm_up_the_first_window_counts_as_any() -> None:
    """Guards: errors of the first second held up no advance where there is no warm-up to forgive them."""
    trial = Trial(10).feed(new=(10, 2), old=(90, 0))
    assert trial.evidence.warmed.value == pytest.approx(trial.evidence.comparison.value)
    assert trial.verdict[0] == "hold"


def test_a_warm_up_ends_also_while_nothing_can_be_committed() -> None:
    """Guards: the age counted from the end of all that waited for the store, and nothing was ever warm."""
    windows = [
        Window(seconds, (Cell(1, 9_000, 90, {}),), (Cell(1, 1_000, 10, {"500": 3}),), percent=10)
        for seconds in (20.0, *[1.0] * 9)
    ]
    trial = Trial(10, warm_up_s=10.0)
    for window in windows:
        trial.see(window)
    assert trial.verdict == ("abort", "comparison")


def test_evidence_stored_by_the_form_before_goes_on() -> None:
    """A rollout that was open while its gateway was replaced: what its field `after` held is shown anew."""
    trial = Trial(10, warm_up_s=10.0).feed(new=(1, 0), old=(9, 0), seconds=60)
    stored = msgspec.to_builtins(trial.evidence)
    stored["after"] = msgspec.to_builtins(stored.pop("warmed")["whole"])
    trial.evidence = msgspec.json.decode(msgspec.json.encode(stored), type=Evidence)
    assert trial.evidence.warmed.value == 1
    assert trial.feed(new=(1, 0), old=(9, 0)).verdict == ("advance", "clear")
    trial.feed(new=(1, 1), old=(9, 0), seconds=20)
    assert trial.verdict == ("abort", "comparison")
