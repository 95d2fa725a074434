"""Replies and problems as HTTP responses."""

import gzip
from typing import Final

import msgspec

from gateway.actions.problems import Problem
from gateway.admin.auth import Unauthorized
from gateway.admin.call import Reply
from gateway.admin.schemas import FieldProblem, ProblemView
from gateway.errors import GatewayError, IllegalTransition, StaleEpoch, StoreError
from gateway.http1.app import Response
from gateway.log import get_logger
from gateway.store.api import BadCursor

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
GUARDS: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))

LEAST_GZIP: Final = 2_048
"""Bytes from which on it is worth the time."""
GZIP_LEVEL: Final = 3
GZIPPED: Final = frozenset({JSON, "text/plain", "text/html"})

STORE_FAILED: Final = "the gateway's store cannot do this at the moment; nothing was changed"
"""What a client is shown; why, and of which file, is in the log."""
STORE_RETRY_S: Final = 5
SEE_STORE: Final = "`gateway status` says more; the reason is in the log of `gateway serve`"

log = get_logger(component="admin")

_encoder: Final = msgspec.json.Encoder()


def answer(status: int, reply: Reply, if_none_match: str | None = None) -> Response:
    """Return a handler's reply; 304 if its ETag is one the client named (RFC 9110 §13.1.2)."""
    fields = [*GUARDS, *reply.fields]
    if reply.stream is not None:
        return Response(status, fields, reply.stream)
    if reply.value is None:
        return Response(204, fields)
    tag = dict(reply.fields).get("ETag")
    if status == 200 and tag is not None and if_none_match is not None and tag in if_none_match:
        return Response(304, fields)
    return Response(status, [("Content-Type", JSON), *fields], _encoder.encode(reply.value))


def compressed(response: Response, accept_encoding: str) -> Response:
    """Return a long answer gzipped, for whoever takes that (RFC 9110 §12.5.3); others as they are.

    Only text that is whole and has no entity tag: a tag would have to be another one.
    """
    fields = dict(response.fields)
    kind = fields.get("Content-Type", "").partition(";")[0]
    body = response.body
    if not isinstance(body, bytes) or len(body) < LEAST_GZIP or kind not in GZIPPED or "ETag" in fields:
        return response
    varied = [*response.fields, ("Vary", "Accept-Encoding")]
    if not takes_gzip(accept_encoding):
        return Response(response.status, varied, body)
    smaller = gzip.compress(body, GZIP_LEVEL, mtime=0)
    return Response(response.status, [*varied, ("Content-Encoding", "gzip")], smaller)


def takes_gzip(accept_encoding: str) -> bool:
    """Return whether an Accept-Encoding field takes gzip: by name, else by `*`; `q=0` is a no."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, _, parameter = part.partition(";")
        name, _, value = parameter.partition("=")
        try:
            weights[coding.strip()] = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def refusal(error: GatewayError) -> Response:
    """Return any error of ours as a problem (RFC 9457); what is not a Problem keeps its status and words."""
    if isinstance(error, StaleEpoch):
        error = Problem(
            503, "Service Unavailable", "another process is in charge; ask again", retry_after_s=1
        )
    elif isinstance(error, StoreError) and error.status == StoreError.status:
        log.error("store_failed", error=str(error))
        error = Problem(503, error.title, STORE_FAILED, retry_after_s=STORE_RETRY_S, next_step=SEE_STORE)
    fields = [("Content-Type", PROBLEM), *GUARDS]
    errors: list[FieldProblem] = []
    next_step = error.next_step if isinstance(error, (Problem, IllegalTransition)) else ""
    if isinstance(error, Problem):
        errors = [FieldProblem(pointer=bad.pointer, detail=bad.detail) for bad in error.errors]
        if error.retry_after_s is not None:
            fields.append(("Retry-After", str(error.retry_after_s)))
    if isinstance(error, BadCursor):
        errors = [FieldProblem(pointer="?after", detail=str(error))]
    if isinstance(error, Unauthorized):
        fields.append(("WWW-Authenticate", error.challenge))
    if isinstance(error, MethodRefused):
        fields.append(("Allow", error.allowed))
    view = ProblemView(
        title=error.title, status=error.status, detail=str(error), next=next_step, errors=errors
    )
    return Response(error.status, fields, _encoder.encode(view))


class MethodRefused(Problem):
    """405, naming what the resource takes (RFC 9110 §15.5.6)."""

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(
            405, "Method Not Allowed", f"{method} is not one of {allowed}", next_step="/docs lists all calls"
        )
        self.allowed = allowed
