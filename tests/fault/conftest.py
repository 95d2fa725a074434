"""Faults strike the same small gateway of real processes that the process tests use."""

from tests.integration.processes.conftest import gateway, upstream

__all__ = ["gateway", "upstream"]
