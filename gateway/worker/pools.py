"""All pools of a worker: made, swept, and met with certificates that were read again."""

from typing import Final

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.service import ServiceSettings
from gateway.errors import ConfigError
from gateway.link.snapshot import ProxySettings
from gateway.log import get_logger
from gateway.worker.pool import Pool

log = get_logger(component="pool")

SWEEP_S: Final = 1.0
"""How often idle connections are looked through."""


class Pools:
    """A pool is kept here until it is closed and empty, whatever becomes of its endpoint."""

    def __init__(self) -> None:
        self.open: set[Pool] = set()
        self._sweep_at = 0.0

    def make(self, endpoint: Endpoint, settings: ServiceSettings, proxy: ProxySettings) -> Pool:
        """Return a new pool for an endpoint."""
        pool = Pool(endpoint, settings, proxy)
        self.open.add(pool)
        return pool

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long. now: monotonic seconds."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        for pool in list(self.open):
            pool.sweep(now)
            if pool.is_over:
                self.open.discard(pool)

    def reload_tls(self) -> None:
        """Read the files again that upstreams are met with; what cannot be used leaves what was."""
        for pool in self.open:
            try:
                pool.reload_tls()
            except ConfigError as exc:
                log.error("tls_not_used", key=exc.path, reason=exc.reason)

    def close(self) -> None:
        """Close every idle connection."""
        for pool in self.open:
            pool.close()
