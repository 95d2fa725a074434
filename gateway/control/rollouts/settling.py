"""What whoever is in charge stores first, if nobody was for a while."""

from gateway.control.isolation import Isolation
from gateway.control.rollouts.in_force import InForce
from gateway.core.rollout.events import Isolated
from gateway.core.rollout.isolation import Then, on_return
from gateway.log import get_logger
from gateway.store.api import Store

log = get_logger(component="rollouts")


async def settle(store: Store, in_force: InForce, isolation: Isolation) -> None:
    """Roll back what nobody judged for too long; then have workers, and other gateways, go by what is stored.

    Raises StoreError: nobody goes forward until it is done.
    """
    found = store.lease
    if found.vacant_s is not None and on_return(found, isolation.limit_s) is Then.ROLL_BACK:
        log.error("nobody_was_in_charge", seconds=round(found.vacant_s, 1))
        async with store.transaction(urgent=True) as tx:
            for running in list(in_force.open.values()):
                if running.state.percent:
                    news = in_force.usability_news(running.state)
                    in_force.move(tx, running, [*news, Isolated(found.vacant_s)])
    if found.vacant_s is not None:
        await store.settle(found.vacant_s)
    isolation.in_touch(found.at)
