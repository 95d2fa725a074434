"""The policies of all services of a table, made anew for those that changed."""

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.table import Service
from gateway.link.snapshot import ProxySettings
from gateway.worker.admission import Admission
from gateway.worker.live_table import Swap
from gateway.worker.policy import Policy
from gateway.worker.pool import Pool
from gateway.worker.pools import Pools


class Policies:
    """`by_service` holds one for each service of the table followed last."""

    def __init__(self, pools: Pools) -> None:
        self.by_service: dict[Service, Policy] = {}
        self._pools = pools
        self._proxy: ProxySettings | None = None
        """What held for all services when they were followed last."""
        self._admissions: dict[str, Admission] = {}
        """By name of the service: they outlive its changes."""
        self._admitting: set[Service] = set()
        """Those at which requests have to ask."""

    def follow(self, swap: Swap, proxy: ProxySettings) -> None:
        """Make the policies of the services that came, in force at once.

        Where all it is made of is as it was, the one before goes on, with its fallback's connections: of most
        services that come only the weights are new.
        """
        admitting = self._admitting.difference(swap.gone)  # where perhaps nobody has to ask any more
        come = (*swap.come, *admitting)
        before = {each.name: (each, self.by_service.pop(each)) for each in (*swap.gone, *admitting)}
        for service in come:
            known = before.get(service.name)
            if known is not None and proxy is self._proxy and _holds(known[1], known[0], service):
                self.by_service[service] = known[1]
                del before[service.name]
            else:
                self.by_service[service] = self._compile(service, proxy)
        self._proxy = proxy
        self._admitting = {each for each in come if self.by_service[each].admission is not None}
        for _, policy in before.values():
            if policy.fallback_endpoint is not None:
                policy.fallback_endpoint.pool.close()
        # Last: who is let in now asks for its policy, or learns that its service is gone.
        names = {each.name for each in come}
        for name in {each.name for each in swap.gone} - names:
            admission = self._admissions.pop(name)
            admission.configure(None, paused=False)
            admission.wake()
        for name in names:
            self._admissions[name].wake()

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


def _holds(policy: Policy, before: Service, service: Service) -> bool:
    """Return whether the policy of a service holds for it as it is now."""
    is_due = policy.admission is None or policy.admission.is_needed
    return is_due and before.paused == service.paused and before.settings == service.settings
