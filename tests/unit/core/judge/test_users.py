"""Sticky users: each counts once, those without a key count each time."""

import random

import msgspec

from gateway.core.judge.evidence import RENEWED_S
from gateway.core.judge.users import MAX_LATELY, MAX_USERS, Lately, Users, first_falls
from gateway.core.judge.window import WHOLE, KeyError64, Window

from .trial import Trial


def test_a_sticky_users_first_error_stands_for_all_of_that_users() -> None:
    trial = Trial(sticky=True)
    for _ in range(100):
        trial.met([1, 2], on_new=True)
    assert len(trial.evidence.users.hashes) == 16
    assert trial.decision.verdict in ("hold", "advance")


def test_many_users_failing_on_the_new_version_abort() -> None:
    trial = Trial(sticky=True)
    for user in range(20):
        trial.met([user], on_new=True)
    assert trial.verdict == ("abort", "comparison")


def test_requests_without_a_key_count_each() -> None:
    """They were never compared: a version that failed all of them was not stopped in half an hour."""
    trial = Trial(sticky=True).feed(new=(1, 1), old=(9, 0), seconds=10)
    assert trial.verdict == ("abort", "comparison")


def test_an_error_that_does_not_count_spends_no_users_first() -> None:
    trial = Trial(sticky=True)
    for user in range(20):
        trial.met([user], on_new=True, kind="418")
    assert trial.evidence.users == Users()
    for user in range(20):
        trial.met([user], on_new=True)
    assert trial.decision.verdict == "abort"


def test_the_set_of_users_is_renewed_so_that_first_errors_do_not_run_out() -> None:
    trial = Trial(sticky=True)
    for user in range(100):
        trial.met([user], on_new=user % 10 == 0)
    for _ in range(13):
        trial.see(Window(seconds=RENEWED_S))
    assert trial.evidence.users == Users()
    for user in range(0, 100, 5):
        trial.met([user], on_new=True)
        if trial.decision.verdict == "abort":
            break
    assert trial.verdict == ("abort", "comparison")


def test_failing_users_are_remembered_within_bounds_and_sampled_fairly() -> None:
    trial = Trial(50, sticky=True)
    rng = random.Random(4)
    for _ in range(400):
        trial.met([rng.getrandbits(64) for _ in range(10)], on_new=True)
        trial.met([rng.getrandbits(64) for _ in range(10)], on_new=False)
        assert len(trial.evidence.users.hashes) <= 8 * MAX_USERS
    assert trial.evidence.users.mask
    assert len(msgspec.json.encode(trial.evidence)) < 20_000
    assert trial.evidence.comparison.value < 20


def test_negative_and_huge_keys_are_taken_as_64_bits() -> None:
    met = [KeyError64(1, 1000, key) for key in (-1, 2**64 - 1, 2**70)]
    users, new, _ = first_falls(Users(), met, [])
    assert len(users.hashes) == 16
    assert len(new) == 2


def test_one_user_who_tries_again_and_again_raises_no_suspicion_at_full_traffic() -> None:
    trial = Trial(0, sticky=True).known().at(100)
    for _ in range(50):
        trial.met([7], on_new=True)
        assert trial.decision.verdict not in ("ask", "abort")


def test_one_user_who_tries_again_and_again_holds_up_no_advance() -> None:
    """Three requests a second of one client paused three in four good rollouts of a sticky service."""
    trial = Trial(sticky=True).feed(new=(1, 0), old=(9, 0), seconds=30)
    for _ in range(50):
        trial.met([7], on_new=True)
    assert trial.decision.new_errors == 50
    assert trial.verdict == ("advance", "clear")


def test_many_users_failing_at_full_traffic_do() -> None:
    trial = Trial(0, sticky=True).known().at(100)
    for user in range(20):
        trial.met([user, user + 100], on_new=True)
        if trial.decision.verdict == "ask":
            break
    assert trial.decision.verdict == "ask"


def test_users_who_failed_lately_are_remembered_within_bounds() -> None:
    lately = Lately()
    for user in range(2_000):
        lately, errors = lately.times([KeyError64(1, WHOLE, user)], 0.01)
        assert errors == 1
        assert len(lately.hashes) <= 8 * MAX_LATELY
