"""The policies of all services of a table, made anew for those that changed."""

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.table import RoutingTable, Service
from gateway.link.snapshot import ProxySettings
from gateway.worker.admission import Admission
from gateway.worker.policy import Policy
from gateway.worker.pool import Pool
from gateway.worker.pools import Pools


class Policies:
    """`by_service` holds one for each service of the table followed last."""

    def __init__(self, pools: Pools) -> None:
        self.by_service: dict[Service, Policy] = {}
        self._pools = pools
        self._admissions: dict[str, Admission] = {}
        """By name of the service: they outlive its changes."""

    def follow(self, table: RoutingTable, proxy: ProxySettings) -> None:
        """Make the policies of `table`, in force at once."""
        before, self.by_service = self.by_service, {}
        for service in table.services.values():
            policy = before.get(service)
            if policy is not None and policy.admission is None:
                # The same service, and the same settings for all: nothing to do for most of a thousand.
                self.by_service[service] = before.pop(service)
            else:
                self.by_service[service] = self._compile(service, proxy)
        for policy in before.values():
            if policy.fallback_endpoint is not None:
                policy.fallback_endpoint.pool.close()
        # Last: who is let in now asks for its policy, or learns that its service is gone.
        for name, admission in list(self._admissions.items()):
            if name not in table.services:
                del self._admissions[name]
                admission.configure(None, paused=False)
            admission.wake()

    def busy(self) -> list[str]:
        """Return the services at which requests run or wait that are counted."""
        return [name for name, admission in self._admissions.items() if not admission.is_empty]

    def _compile(self, service: Service, proxy: ProxySettings) -> Policy:
        fallback = None
        if service.settings.fallback is not None and service.settings.fallback.url is not None:
            fallback = Endpoint(f"fallback|{service.name}", url=service.settings.fallback.url)
            fallback.pool = self._pools.make(fallback, service.settings, proxy)
        for endpoint in service.endpoints():
            assert isinstance(endpoint.pool, Pool)
            endpoint.pool.configure(service.settings, proxy)
        admission = self._admissions.setdefault(service.name, Admission())
        return Policy(service, proxy.timeouts, admission, fallback)
