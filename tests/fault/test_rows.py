"""Nothing is lost while things come and go: the rows of `python -m bench faults`, with fewer requests."""

from pathlib import Path

import pytest

from bench.faults import ROWS, Row, run_row
from tests.effort import effort

REQUESTS = effort(1_000, 2_000)
RATE = effort(200, 250)
"""Requests per second: four rows at once must leave two cores some air."""
PATIENCE = 10.0
SLOWEST_MS = 10_000
"""The measurement, on a machine of its own, holds every request to two seconds; tests share theirs."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_nothing_is_lost_during(row: Row, tmp_path: Path) -> None:
    result = await run_row(row, tmp_path, requests=REQUESTS, rate=RATE, patience=PATIENCE)
    assert result.load.sent >= REQUESTS
    assert result.load.failures <= result.allowed, result
    assert result.load.max_ms < SLOWEST_MS, result
    assert result.wants == ""
