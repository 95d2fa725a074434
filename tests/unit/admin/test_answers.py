"""Long answers are compressed for whoever takes that; entity tags; every path says what it takes."""

import gzip
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.actions.access import etag, require_match
from gateway.actions.problems import Problem
from gateway.admin.answers import takes_gzip
from gateway.admin.call import BASE
from gateway.admin.routes import ROUTES
from gateway.core.rollout.plan import RolloutSettings, plan
from gateway.core.rollout.state import Rollout
from gateway.store.api import Page
from gateway.store.records import DeploymentRecord, VersionRecord
from tests.unit.admin.bench import AT, Bench

LIST = f"{BASE}/deployment/versions"


def listed(bench: Bench, version: VersionRecord, count: int) -> None:
    records = [replace(version, id=f"ver-{n}", version=f"v{n}") for n in range(count)]
    bench.actions.answers["versions.list_all"] = Page(records)


async def test_a_long_list_is_gzipped_for_whoever_takes_it(bench: Bench, version: VersionRecord) -> None:
    listed(bench, version, 50)
    plain = await bench.ask("GET", LIST, query="limit=200")
    packed = await bench.ask("GET", LIST, query="limit=200", accept_encoding="br, gzip;q=0.5")
    assert "Content-Encoding" not in dict(plain.fields)
    assert dict(plain.fields)["Vary"] == dict(packed.fields)["Vary"] == "Accept-Encoding"
    assert dict(packed.fields)["Content-Encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 3
    assert gzip.decompress(packed.body) == plain.body


async def test_short_answers_tagged_ones_and_refusals_stay_as_they_are(
    bench: Bench, version: VersionRecord
) -> None:
    listed(bench, version, 1)
    short = await bench.ask("GET", LIST, accept_encoding="gzip")
    bench.actions.answers["versions.get"] = replace(version, replicas=("http://127.0.0.1:7300",) * 200)
    tagged = await bench.ask("GET", f"{LIST}/ver-1", accept_encoding="gzip")
    for response in (short, tagged, await bench.ask("GET", f"{BASE}/nothing", accept_encoding="gzip")):
        assert "Content-Encoding" not in dict(response.fields)
    assert msgspec.json.decode(tagged.body)["id"] == "ver-1"


@pytest.mark.parametrize(
    ("field", "takes"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=x", False),
        ("identity", False),
        ("gzipped", False),
    ],
)
def test_accept_encoding_is_read_as_it_is_meant(field: str, takes: bool) -> None:
    assert takes_gzip(field) is takes


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity", "x"])
async def test_a_compressed_request_is_refused_and_never_unpacked(bench: Bench, coding: str) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    response = await bench.ask("POST", f"{BASE}/tokens", body=bomb, content_encoding=coding)
    assert response.status == 415


async def test_head_and_options_work_wherever_anything_does(bench: Bench) -> None:
    for route in ROUTES:
        path = f"{BASE}/{route.path.replace('{id}', 'x').replace('{name}', 'x')}"
        response = await bench.ask("OPTIONS", path)
        allowed = dict(response.fields)["Allow"].split(", ")
        assert response.status == 204
        assert {route.method, "OPTIONS"} <= set(allowed)
        assert ("HEAD" in allowed) == ("GET" in allowed)
        refused = await bench.ask("TRACE", path)
        assert (refused.status, dict(refused.fields)["Allow"].split(", ")) == (405, allowed)


def rolling(**more: Any) -> DeploymentRecord:
    """Return a rollout's row in some state."""
    state = Rollout(id="d", service="auth", old="o", new="n", plan=plan("canary", RolloutSettings()), **more)
    return DeploymentRecord(
        id="d",
        service_name="auth",
        to_version_id="n",
        state=msgspec.json.encode(state),
        created_at=AT,
        updated_at=AT,
    )


def test_seconds_that_only_pass_do_not_change_what_if_match_holds_for() -> None:
    """A tag that every tick made old refused whoever took two seconds to decide."""
    seen = rolling(records=3, serial=1, remaining_ms=9_000)
    later = replace(rolling(records=3, serial=1, remaining_ms=1_000), updated_at=AT.replace(second=59))
    moved = rolling(records=4, serial=2)
    assert etag(seen) != etag(later), "what is shown is another representation"
    require_match(etag(seen), later)
    require_match(f'"x", {etag(seen)}', later)
    for lie in (etag(seen), '"', '""', '"3-1', "W/" + etag(moved), '"*"', ""):
        with pytest.raises(Problem) as refused:
            require_match(lie, moved)
        assert refused.value.status == 412
