"""What operators may do: one method for each call of the admin API, by noun in the files beside this one.

A method is called after authentication and the role check. It applies every other rule there is, commits
the change with its audit row, and returns records; what it refuses it raises as a Problem, audited too.
"""

from gateway.actions.deployments import DeploymentActions
from gateway.actions.gateway import GatewayActions
from gateway.actions.reports import ReportActions
from gateway.actions.services import ServiceActions
from gateway.actions.whatif import WhatIfActions


class Actions(ServiceActions, DeploymentActions, ReportActions, WhatIfActions, GatewayActions):
    """Everything operators may do."""
