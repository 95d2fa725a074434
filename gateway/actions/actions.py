"""What operators may do: one method for each call of the admin API, by noun in the files beside this one.

A method is called after authentication and the role check. It applies every other rule there is, commits
the change with its audit row, and returns records; what it refuses it raises as a Problem, audited too.
"""

from gateway.actions.access import Access
from gateway.actions.acknowledgements import Acknowledgements
from gateway.actions.charts import Charts
from gateway.actions.deployments import Deployments
from gateway.actions.gateway import Gateway
from gateway.actions.nodes import Nodes
from gateway.actions.overview import Overview
from gateway.actions.reports import Reports
from gateway.actions.second_person import Approvals
from gateway.actions.services import Services
from gateway.actions.tokens import Tokens
from gateway.actions.upkeep import Upkeep, Watch
from gateway.actions.versions import Versions
from gateway.actions.whatif import WhatIfs


class Actions:
    """Everything operators may do."""

    def __init__(self, access: Access, watch: Watch) -> None:
        self.services = Services(access)
        self.versions = Versions(access, self.services)
        self.deployments = Deployments(access)
        self.acknowledgements = Acknowledgements(access)
        self.charts = Charts(access)
        self.reports = Reports(access)
        self.overview = Overview(access)
        self.whatif = WhatIfs(access)
        self.gateway = Gateway(access)
        self.nodes = Nodes(access)
        self.approvals = Approvals(access)
        self.upkeep = Upkeep(access, watch)
        self.tokens = Tokens(access)
