"""The test gate on several gateways: who has to pass it, what is said of who does not, who probes when."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from gateway.control.rollouts import gates
from gateway.control.rollouts.gates import (
    NOT_YET,
    NOTHING_SAID,
    UNHEALTHY,
    GatesHere,
    failure,
    not_passed,
)
from gateway.control.rollouts.served import Word
from gateway.core.rollout.state import Phase, Rollout
from gateway.errors import Exhausted, GatewayError
from tests.unit.control.rollouts.test_barrier import LEADER, node, rollout

NODES = [LEADER, node("b"), node("c", is_silent=True), node("standby", None)]


def said(**fields: str | bool | None) -> dict[str, Word]:
    return {"id-b": Word(**fields)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (said(gate=""), []),
        (said(gate="", is_healthy=False), []),
        (said(gate="no route"), [("b", "no route")]),
        (said(gate=NOT_YET), [("b", NOT_YET)]),
        (said(gate=None), []),
        (said(gate=None, is_healthy=False), [("b", UNHEALTHY)]),
        ({}, [("b", NOTHING_SAID)]),
    ],
)
def test_who_lives_and_serves_has_to_pass(words: dict[str, Word], missing: list[tuple[str, str]]) -> None:
    """None: of a release that does not say; what it thinks of the version counts, as it did."""
    assert not_passed(NODES, words) == missing


def test_one_of_another_release_that_says_nothing_fails_no_gate() -> None:
    older = replace(node("b"), release="0")
    missing = not_passed([LEADER, older], {})
    assert missing == [("b", "")], "it is waited for"
    assert failure(missing) == "", "and not for ever"


def test_a_failure_names_the_first_gateways_and_counts_the_others() -> None:
    assert failure([("b", "no route"), ("c", "")]) == "gateway b: no route"
    many = [(name, "no") for name in "bcdef"]
    assert failure(many) == "gateway b: no; gateway c: no; gateway d: no; and 2 more"


class Probing:
    """Answers to probes, one after the other; the last one again and again. None: never."""

    def __init__(self, *answers: str | GatewayError | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def gate(self, version_id: str) -> str:
        self.asked.append(version_id)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, GatewayError):
            raise answer
        return answer or ""


def at(phase: Phase) -> Rollout:
    return rollout(phase=phase)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


async def test_a_version_is_probed_again_until_it_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "AGAIN_S", 0.0)
    probing = Probing("no route", Exhausted("no more descriptors"), "")
    here = GatesHere(probing)
    heard: list[str] = []
    here.on_news = lambda: heard.append(here.word("d"))
    assert here.word("d") == NOT_YET
    here.follow([at(Phase.GATE)])
    await until(lambda: len(heard) == 3)
    assert heard == ["no route", "no more descriptors", ""]
    here.follow([at(Phase.GATE)])
    await asyncio.sleep(0)
    assert (here.word("d"), probing.asked) == ("", ["new"] * 3), "it has passed: nobody asks again"
    await here.stop()


async def test_nobody_probes_for_a_rollout_that_is_not_at_its_gate() -> None:
    probing = Probing(None)
    here = GatesHere(probing)
    here.follow([at(Phase.STEPPING)])
    assert not here._under_way
    here.follow([at(Phase.GATE)])
    await until(lambda: bool(probing.asked))
    assert here.word("d") == NOT_YET
    here.follow([])
    await until(lambda: not here._under_way)
    await here.stop()


async def test_probes_that_break_fail_the_gate() -> None:
    class Broken(Probing):
        async def gate(self, version_id: str) -> str:
            raise RuntimeError(version_id)

    here = GatesHere(Broken())
    here.follow([at(Phase.GATE)])
    await until(lambda: not here._under_way)
    assert here.word("d") == "RuntimeError('new')"


async def test_a_version_that_is_not_known_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "AGAIN_S", 0.01)

    class Late(Probing):
        known = False

        async def gate(self, version_id: str) -> str:
            if not self.known:
                raise KeyError(version_id)
            return ""

    probing = Late()
    here = GatesHere(probing)
    here.follow([at(Phase.GATE)])
    await until(lambda: here.word("d") == gates.NOT_KNOWN)
    probing.known = True
    await until(lambda: here.word("d") == "")


async def test_one_that_has_stopped_says_what_it_found_and_probes_no_more() -> None:
    """The last words of a follower that was upgraded took back that the new version had passed there."""

    class Good(Probing):
        async def gate(self, version_id: str) -> str:
            return ""

    here = GatesHere(Good())
    here.follow([at(Phase.GATE)])
    await until(lambda: here.word("d") == "")
    await here.stop()
    here.follow([at(Phase.GATE)])
    assert (here.word("d"), here._under_way) == ("", {})
    here.begin()
    assert here.word("d") == gates.NOT_YET


def test_a_word_is_understood_by_the_release_before_and_one_of_it_by_ours() -> None:
    class Before(msgspec.Struct, frozen=True, array_like=True):
        """A word as the release before has it."""

        begun: float = 0.0
        usable: tuple[bool, bool] = (True, True)
        is_healthy: bool = True
        lately: int = 0

    ours = msgspec.msgpack.encode(Word(1.0, (True, False), False, 7, "no route"))
    assert msgspec.msgpack.decode(ours, type=Before) == Before(1.0, (True, False), False, 7)
    theirs = msgspec.msgpack.encode(Before(1.0, (True, False), False, 7))
    assert msgspec.msgpack.decode(theirs, type=Word) == Word(1.0, (True, False), False, 7, None)
