"""The calls about rollouts that the admin API's README shows do what it says they do."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from tests.integration.rollouts.stage import ROOT, Release, Stage, staged

pytestmark = pytest.mark.timeout(180)

SECTION: Final = (
    (ROOT / "gateway/admin/README.md")
    .read_text("utf-8")
    .partition("## Rollout settings")[2]
    .partition("\n### ")[0]
)


class Line(NamedTuple):
    """What a line sends. path: below the admin API's base, `$ROLLOUT` as it stands."""

    method: str
    path: str
    body: Any


def lines() -> Iterator[Line]:
    """Yield the section's lines."""
    for block in re.findall(r"^```sh\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL):
        for text in re.split(r"^(?=call )", block, flags=re.MULTILINE)[1:]:
            yield line(shlex.split(text, comments=True))


def line(words: list[str]) -> Line:
    """Read one line as curl does. A word it does not know is an error."""
    assert words[0] == "call", words
    rest, method, path, body = words[1:], "", "", None
    while rest:
        match rest:
            case ["-X", method, *rest]:
                pass
            case ["-d", text, *rest]:
                body = json.loads(text)
            case [url, *rest] if url.startswith("$API/"):
                path = url.removeprefix("$API/")
            case _:
                raise AssertionError(f"unknown to this test: {rest}")
    return Line(method or ("GET" if body is None else "POST"), path, body)


STARTS: Final = {each.body["strategy"]: each for each in lines() if each.path == "deployment/start"}
OTHERS: Final = [each for each in lines() if each.path != "deployment/start"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("readme")) as made:
        yield made


class Reader:
    """Somebody who types the lines, for a service of another name."""

    def __init__(self, release: Release) -> None:
        self.release = release

    async def types(self, line: Line) -> Any:
        """Send a line; returns its answer, which is no refusal."""
        path = line.path.replace("$ROLLOUT", self.release.id).replace(
            "services/auth/", f"services/{self.name}/"
        )
        body = line.body
        if isinstance(body, dict) and "serviceName" in body:
            body = body | {"serviceName": self.name}
        return await self.release.world.api(line.method, path, body)

    @property
    def name(self) -> str:
        return self.release.name

    async def starts(self, strategy: str, percent: int) -> None:
        self.release.id = (await self.types(STARTS[strategy]))["id"]
        await self.release.reaches(percent)


def about(path: str, body: object = None) -> Line:
    """Return the line for a path that ends so, if there are two: with this body."""
    found = [each for each in OTHERS if each.path.endswith(path) and body in (None, each.body)]
    assert len(found) == 1, (path, found)
    return found[0]


async def test_every_line_works_as_it_stands(stage: Stage) -> None:
    release = await stage.release(stage.good.url)
    reader = Reader(release)
    async with release.traffic() as traffic:
        await reader.starts("blue-green", 100)
        await reader.types(about("/rollback"))
        await release.becomes("rolled_back")

        await reader.starts("immediate", 100)
        await reader.types(about("/undo"))
        await release.becomes("rolled_back")

        await reader.starts("canary", 10)
        assert (await reader.types(about("/pause")))["status"] == "paused"
        assert (await reader.types(about("/resume")))["status"] == "rolling"
        assert (await reader.types(about("/traffic")))["trafficPercent"] == 30
        assert (await reader.types(about("/promote", {})))["trafficPercent"] == 50
        await traffic.sent(240)  # two seconds to look back on
        assert (await reader.types(about("/promote", {"full": True})))["trafficPercent"] == 100
        await reader.types(about("/complete"))
        await release.becomes("completed")

        undone = await reader.types(about("/undo"))
        assert (undone["strategy"], undone["toVersion"]) == ("immediate", "v1.0")
    replayed = await reader.types(about("/whatif"))
    assert replayed["items"]
    assert (await reader.types(about("freeze")))["frozen"]
    typed = {"rollback", "undo", "pause", "resume", "traffic", "promote", "complete", "whatif", "freeze"}
    assert {each.path.rpartition("/")[2] for each in OTHERS} == typed
