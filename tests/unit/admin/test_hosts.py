"""The listener answers to its own names only, at every path."""

import socket

import pytest

from gateway.actions.problems import Problem
from gateway.admin.hosts import OwnNames
from tests.unit.admin.bench import Bench


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:4201", "10.1.2.3", "[::1]:4201", "localhost", "LOCALHOST:4201", "localhost.",
        "gateway:4201", socket.gethostname(),
    ],
)  # fmt: skip
def test_own_names_and_addresses_are_answered(host: str) -> None:
    OwnNames(["gateway"]).check({"host": host})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:1", "127.0.0.1.evil.example", "gateway.evil"])
def test_a_name_that_leads_here_is_not_ours(host: str) -> None:
    with pytest.raises(Problem) as refused:
        OwnNames(["gateway"]).check({"host": host})
    assert refused.value.status == 421


@pytest.mark.parametrize("path", ["/", "/metrics", "/livez", "/openapi.json", "/api/v1/admin/services"])
async def test_no_path_answers_a_page_of_another_name(bench: Bench, path: str) -> None:
    """Guards against DNS rebinding: the browser takes the page's name for ours."""
    assert (await bench.ask("GET", path, host="evil.example:4201")).status == 421
