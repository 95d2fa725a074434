"""An example for every request body of the admin API, by action: what one sends to try the call."""

from typing import Any, Final

WHY: Final = {"reason": "support called"}

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "version.create": {
        "serviceName": "auth",
        "version": "v1.1",
        "url": "http://127.0.0.1:7201",
        "shutdownUrl": "http://127.0.0.1:7201/shutdown",
        "routes": [{"host": "*", "path": "/api/v1/auth"}],
    },
    "version.patch": {"weight": 20},
    "version.test": {
        "smokeTests": {"endpoints": [{"method": "GET", "path": "/api/health", "expectedStatus": 200}]}
    },
    "version.drain": {"timeout": 30000},
    "deployment.start": {
        "serviceName": "auth",
        "toVersion": "v1.1",
        "strategy": "canary",
        "config": {
            "steps": [10, {"percent": 50, "pause": True}, 95, 100],
            "stepInterval": 300000,
            "errorThreshold": 5,
        },
    },
    "deployment.whatif": {"serviceName": "auth", "strategy": "canary", "config": {"errorThreshold": 1}},
    "deployment.traffic": {"percent": 30, **WHY},
    "deployment.rollback": WHY,
    "deployment.complete": WHY,
    "deployment.pause": {"reason": "looking into a report"},
    "deployment.resume": {"reason": "the report was about something else"},
    "deployment.promote": {"full": True, **WHY},
    "deployment.ack": {"note": "a wrong database url; fixed in v1.2"},
    "service.create": {
        "name": "auth",
        "routes": [{"host": "*", "path": "/api/v1/auth"}],
        "health": {"path": "/api/health", "interval": 10000},
        "retry": {"attempts": 3, "budgetPercent": 20},
    },
    "service.patch": {"health": {"path": "/up"}, "sticky": {"by": "cookie:uid"}, "fallback": None},
    "service.undo": WHY,
    "service.pause": {"reason": "the database moves"},
    "service.resume": {},
    "audit.acknowledge": {"note": "the disk was replaced"},
    "token.create": {"name": "ci", "role": "deployer", "services": "auth*", "expiresIn": 7776000000},
    "token.rotate": {"overlap": 3600000},
    "freeze.put": {"frozen": True, "reason": "launch day"},
}
"""A call that is not here takes no body, or `{}`."""
