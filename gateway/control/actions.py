"""What operators may do: one method for each call of the admin API, by noun in the files beside this one.

A method is called after authentication and the role check. It applies every other rule there is, commits
the change with its audit row, and returns records; what it refuses it raises as a Problem, audited too.
"""

from gateway.control.actions_deployments import DeploymentActions
from gateway.control.actions_gateway import GatewayActions
from gateway.control.actions_reports import ReportActions
from gateway.control.actions_services import ServiceActions
from gateway.control.actions_whatif import WhatIfActions


class Actions(ServiceActions, DeploymentActions, ReportActions, WhatIfActions, GatewayActions):
    """Everything operators may do."""
