"""A bench with the admin server on it, and one record of each kind."""

import pytest

from gateway.core.routing.service import ServiceSettings
from gateway.store.records import DeploymentRecord, ServiceRecord, VersionRecord
from tests.unit.admin.bench import AT, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def version() -> VersionRecord:
    return VersionRecord(
        id="ver-1",
        service_id="svc-1",
        service_name="auth",
        version="v1.1",
        url="http://127.0.0.1:7201",
        created_at=AT,
        updated_at=AT,
    )


@pytest.fixture
def deployment() -> DeploymentRecord:
    return DeploymentRecord(
        id="dep-1",
        service_name="auth",
        from_version_id="ver-0",
        from_version="v1.0",
        to_version_id="ver-1",
        to_version="v1.1",
        created_at=AT,
        updated_at=AT,
    )


@pytest.fixture
def service() -> ServiceRecord:
    return ServiceRecord(id="svc-1", name="auth", settings=ServiceSettings(), created_at=AT, updated_at=AT)
