"""A gateway of real processes for each test that asks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.processes.harness import Gateway, Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture
def gateway(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    running = Gateway(tmp_path, upstream.address)
    yield running
    running.close()
