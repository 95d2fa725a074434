"""What a request says about the version it should get: a tester's wish, or whose request it is."""

from gateway.http1.heads import plain_name
from gateway.http1.request import RequestReader
from gateway.worker.exchange.cookies import take_cookie
from gateway.worker.exchange.record import Record
from gateway.worker.exchange.request_head import Forwarder, RequestIds
from gateway.worker.policy import Policy, digest, sticky_key


def wish_of(request: RequestReader, policy: Policy, forwarder: Forwarder) -> str | None:
    """Return the name of the version a tester asks for, or `@new`; None from anybody else.

    What asks is taken out of the request, whoever sent it: a secret, or a field only some may use.
    """
    wish = None
    if policy.tester_cookie:
        for secret in take_cookie(request, policy.tester_cookie):
            wish = wish or policy.tester_values.get(digest(secret))
    elif policy.tester_header:
        secret = request.field(policy.tester_header) or b""
        wish = policy.tester_values.get(digest(secret))
        request.drop(policy.tester_header)
    if policy.version_header and request.passes_on(plain_name(policy.version_header)):
        name = request.field(policy.version_header) or b""
        request.drop(policy.version_header)
        if wish is None and name and policy.version_allow.holds(forwarder.client_of(request).address):
            wish = name.decode("latin-1")
    return wish


def find_key(
    record: Record, request: RequestReader, policy: Policy, forwarder: Forwarder, ids: RequestIds
) -> None:
    """Note whose request it is at a sticky service; a client without the cookie may be given one."""
    service = record.service
    assert service is not None
    assert service.sticky is not None
    by, client = service.sticky.by, forwarder.client_of(request)
    record.key = sticky_key(by, request, client.address)
    if record.key is None and policy.issues_cookie and by.startswith("cookie:"):
        record.key = ids.next()[:32]
        secure = b"; Secure" if client.proto == b"https" else b""
        cookie = (by[7:].encode(), record.key, secure)
        record.fields = b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax%b\r\n" % cookie
