"""What is known of one request, for its counts, for another attempt, and for the log."""

import time
from time import monotonic
from typing import Final

from gateway.core.routing.endpoint import Endpoint
from gateway.core.routing.table import Service
from gateway.core.routing.version import Version
from gateway.http1.server import ServerProtocol
from gateway.worker.access_log import Line, ascii_of, utc

OTHER: Final = "OTHER"
"""What any other method is counted as: clients may make up as many as they like."""
METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")
}


class Record:
    """Used for one request after the other: `clear` makes it as new."""

    __slots__ = (
        "answered_us",
        "attempts",
        "began",
        "content_bytes",
        "endpoint",
        "generation",
        "is_chosen_by_split",
        "is_tester",
        "key",
        "method",
        "outcome",
        "service",
        "set_cookie",
        "share",
        "status",
        "version",
    )

    def __init__(self) -> None:
        self.began = 0.0
        """Monotonic seconds."""
        self.method = ""
        self.service: Service | None = None
        self.key: bytes | None = None
        """What identifies the user of a sticky service."""
        self.set_cookie = b""
        """The field that gives this client such a key."""
        self.generation = 0
        """Of the weights by which the version was chosen."""
        self.share = 0
        """That the version had then: hundredths of a percent."""
        self.is_chosen_by_split = False
        self.is_tester = False
        """The client has asked for this version: it is nobody's evidence, and moves no breaker."""
        self.attempts = 0
        self.version: Version | None = None
        """Of the last attempt."""
        self.endpoint: Endpoint | None = None
        """Of the last attempt."""
        self.outcome = ""
        """What went wrong with it, if something did."""
        self.status = 0
        self.answered_us = 0
        """How long the client waited for the head of its answer."""
        self.content_bytes = 0
        """Of the answer's content, so far."""

    def clear(self) -> None:
        """The request is over."""
        self.version = self.endpoint = None
        self.status = 0
        self.content_bytes = 0
        if self.outcome:
            self.outcome = ""
        if self.key is not None:
            self.key = None
            self.set_cookie = b""

    def line(self, client: ServerProtocol, address: str) -> Line:
        """Return what the access log says of the request that `client` has sent. address: its own."""
        request, service, version, endpoint = client.reader, self.service, self.version, self.endpoint
        return Line(
            time=utc(time.time()),
            client=address,
            peer=client.peer,
            method=ascii_of(request.method),
            target=ascii_of(request.target),
            protocol="HTTP/1.0" if request.http10 else "HTTP/1.1",
            status=self.status,
            bytes=self.content_bytes,
            duration_ms=int((monotonic() - self.began) * 1e6) / 1000,
            host=request.host,
            referer=ascii_of(request.field(b"referer") or b""),
            user_agent=ascii_of(request.field(b"user-agent") or b""),
            service=service.name if service else "",
            version=version.name if version else "",
            endpoint=endpoint.url if endpoint else "",
            attempts=self.attempts,
            outcome=self.outcome,
        )
