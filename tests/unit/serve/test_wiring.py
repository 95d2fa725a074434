"""The components are wired so that the first table workers serve by is complete."""

from pathlib import Path

import msgspec

from gateway import config
from gateway.control.processes.hub import Hub
from gateway.control.tally import Tally
from gateway.core.settings.observing import OtelSettings, TraceSettings
from gateway.serve.charge import in_charge
from gateway.serve.wiring import Components


class _State:
    """A process that has just begun."""

    restarts: dict[str, int]

    def __init__(self) -> None:
        self.restarts = {}

    def certificate_expiries(self) -> dict[tuple[str, str], float]:
        return {}

    def unready(self) -> str | None:
        return "starting"


async def _upgrade() -> int:
    return 0


async def test_the_first_table_has_endpoints_for_named_hosts(tmp_path: Path) -> None:
    version = {"version": "v1", "url": "http://localhost:7200"}
    service = {"name": "auth", "routes": [{"path": "/"}], "version": [version]}
    settings = config.check({"store": {"url": f"sqlite:///{tmp_path / 'gateway.db'}"}, "service": [service]})
    hub = Hub()
    components = await Components.open(
        settings,
        (await in_charge(settings))[0],
        hub,
        Tally(),
        _State(),
        marks={},
        upgrade=_upgrade,
        listeners=lambda: (),
    )
    try:
        assert hub.whole is not None
        (version,) = hub.whole().services["auth"].versions
        assert [endpoint.port for endpoint in version.endpoints] == [7200] * len(version.endpoints)
        assert version.endpoints
        assert hub.whole().proxy == components.proxy_settings(settings, ())
        assert not components.proxy_settings(settings, ()).trace_export
        collected = TraceSettings(otel=OtelSettings(endpoint="http://collector:4318/v1/traces"))
        traced = msgspec.structs.replace(settings, trace=collected)
        assert components.proxy_settings(traced, ()).trace_export
    finally:
        await components.store.close()
