"""Whether live requests go to a version, or may any moment: what an operator must not point elsewhere."""

from gateway.core.routing.service import ServiceSettings
from gateway.store.records import DeploymentRecord, VersionRecord


def version_use(
    version: VersionRecord,
    settings: ServiceSettings,
    deployment: DeploymentRecord | None,
    undo_to: str | None,
) -> str:
    """Return how live requests may reach a version, as the end of a sentence; empty if they may not.

    settings: its service's. deployment: the open one of its service. undo_to: id of the version that an undo
    would go back to.
    """
    if version.weight:
        return f"has a weight of {version.weight}"
    if deployment is not None and version.id in (deployment.from_version_id, deployment.to_version_id):
        return f"is in deployment {deployment.id}"
    if version.version in settings.named_versions:
        return "is named by its service's settings"
    return "is where an undo goes back to" if version.id == undo_to else ""
