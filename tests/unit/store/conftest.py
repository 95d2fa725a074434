"""Every store there is, one after the other."""

from pathlib import Path

import pytest

from tests import postgres
from tests.unit.store.rows import Kept

ADAPTERS = ["sqlite", pytest.param("postgres", marks=postgres.needs_postgres)]


@pytest.fixture(params=ADAPTERS)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """An empty store of each adapter."""
    if request.param == "postgres":
        return Kept(postgres.shared().migrated())
    return Kept(f"sqlite:///{tmp_path / 's.db'}")
