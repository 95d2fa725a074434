"""What a request says about the version it should get: a tester's wish, or whose request it is."""

from gateway.core.routing.table import Service, Version
from gateway.http1.request import RequestReader
from gateway.worker.exchange.record import Record
from gateway.worker.exchange.request_head import Forwarder, RequestIds
from gateway.worker.policy import Policy, sticky_key


def asked_for(
    request: RequestReader, service: Service, policy: Policy, forwarder: Forwarder
) -> Version | None:
    """Return the version a tester names, if this client may; nobody's field is passed on."""
    name = request.field(policy.version_header) or b""
    request.drop(policy.version_header)
    if not policy.version_allow.holds(forwarder.client_of(request).address):
        return None
    return service.by_name(name.decode("latin-1"))


def find_key(
    record: Record, request: RequestReader, policy: Policy, forwarder: Forwarder, ids: RequestIds
) -> None:
    """Note whose request it is at a sticky service; a client without the cookie may be given one."""
    service = record.service
    assert service is not None
    assert service.sticky is not None
    by = service.sticky.by
    record.key = sticky_key(by, request, forwarder.client_of(request).address)
    if record.key is None and policy.issues_cookie and by.startswith("cookie:"):
        record.key = ids()
        record.set_cookie = b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax\r\n" % (
            by[7:].encode(),
            record.key,
        )
