"""An HTTP gateway that deploys the services behind it with zero downtime."""

__version__ = "0.1.0"
