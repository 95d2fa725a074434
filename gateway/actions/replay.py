"""A start that comes again under its Idempotency-Key."""

from typing import Any

import msgspec

from gateway.actions.bodies import StartDeployment
from gateway.actions.problems import Problem
from gateway.core.rollout.plan import RolloutSettings
from gateway.store.records import DeploymentRecord


def plain(settings: RolloutSettings) -> dict[str, Any]:
    """Return settings as they come back from JSON."""
    return dict(msgspec.json.decode(msgspec.json.encode(settings)))


def replayed(earlier: DeploymentRecord, body: StartDeployment, settings: RolloutSettings) -> DeploymentRecord:
    """Return the deployment a key opened. Raises Problem 422 if it was another request's key."""
    same = (
        earlier.service_name == body.service_name
        and body.to_version in (earlier.to_version, earlier.to_version_id)
        and body.from_version in (None, earlier.from_version, earlier.from_version_id)
        and earlier.strategy == body.strategy
        and earlier.config == plain(settings)
    )
    if not same:
        raise Problem(
            422,
            "Unprocessable Content",
            f"the Idempotency-Key was used for deployment {earlier.id}, which differs",
        )
    return earlier
