"""What is wrong with an operator's request, as a value the admin listener can send (RFC 9457)."""

from http import HTTPStatus
from typing import Final

import msgspec

from gateway.errors import GatewayError

LISTED_BY: Final = {
    "service": "`gateway get` lists those there are",
    "version": "`gateway versions` lists those there are",
    "deployment": "`gateway history` lists those there are",
    "token": "`gateway token list` lists those there are",
    "approval": "`gateway approvals --all` lists those there are",
    "node": "`gateway nodes` lists those there are",
}
"""What to type where a thing is not found, by the first word of what it is."""
ASK_AN_ADMIN: Final = "an admin makes a token that may: `gateway token create NAME --role ROLE`"


class FieldError(msgspec.Struct, frozen=True):
    """One bad field. pointer: a JSON pointer into the body (RFC 6901), or `?name` for a query parameter."""

    pointer: str
    detail: str


class Problem(GatewayError):
    """A request that is refused: its status says whose turn it is, `detail` what is wrong, `next_step` what
    to do about it.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        errors: list[FieldError] | None = None,
        *,
        retry_after_s: int | None = None,
        next_step: str = "",
    ) -> None:
        """next_step: without a period, as it follows a colon. Empty: `detail`, the errors or the time to wait
        say it.
        """
        super().__init__(detail)
        self.status = status  # type: ignore[misc]  # the tree's statuses belong to classes, this one's to the instance
        self.title = title or HTTPStatus(status).phrase  # type: ignore[misc]
        self.detail = detail
        self.errors = errors or []
        self.retry_after_s = retry_after_s
        self.next_step = next_step


def not_found(what: str, name: str) -> Problem:
    """404: `what` (a service, a version, …) called `name` does not exist."""
    return Problem(404, "Not Found", f"no {what} {name!r}", next_step=LISTED_BY[what.split()[0]])


def forbidden(detail: str, next_step: str = ASK_AN_ADMIN) -> Problem:
    """403: who asks may not do this."""
    return Problem(403, "Forbidden", detail, next_step=next_step)


def conflict(detail: str, next_step: str) -> Problem:
    """409: the request is fine, the present state does not allow it. next_step: how to get out of that."""
    return Problem(409, "Conflict", detail, next_step=next_step)


def stale(detail: str) -> Problem:
    """412: the thing has changed since the client read it (RFC 9110 §13.1.1)."""
    next_step = "read it again, and send the entity tag it has then"
    return Problem(412, "Precondition Failed", detail, next_step=next_step)


def invalid(pointer: str, detail: str) -> Problem:
    """422: the field at `pointer` cannot be accepted."""
    return Problem(
        422,
        "Unprocessable Content",
        f"{pointer}: {detail}" if pointer else detail,
        [FieldError(pointer, detail)],
    )


def invalid_all(errors: list[FieldError]) -> Problem:
    """422: every one of these fields cannot be accepted. The detail is about the first."""
    first, further = errors[0], len(errors) - 1
    detail = f"{first.pointer}: {first.detail}" if first.pointer else first.detail
    detail += f" (and {further} more: see errors)" if further else ""
    return Problem(422, "Unprocessable Content", detail, errors)


def malformed(detail: str) -> Problem:
    """400: the body is not JSON."""
    return Problem(400, "Bad Request", detail)
