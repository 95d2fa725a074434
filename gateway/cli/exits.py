"""What the process's exit code says."""

from typing import Any, Final

OK: Final = 0
FAILED: Final = 1
"""It did not work, or the rollout failed or was rolled back."""
USAGE: Final = 2
TIMED_OUT: Final = 3
DENIED: Final = 4
"""No token, a wrong one, or one whose role may not do this."""
INTERRUPTED: Final = 130
"""By Ctrl-C, as shells count it."""


class CliError(Exception):
    """Ends the command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


class Unreachable(CliError):
    """No admin API answered."""


class Kept(CliError):
    """Nothing was done yet: a second person has to confirm it."""

    def __init__(self, approval: dict[str, Any]) -> None:
        who, until = approval["askedOwner"], approval["expiresAt"][11:16]
        super().__init__(
            f"not done yet: a second person has to confirm it ({approval['what']}); "
            f"somebody else than {who} types, until {until} UTC: {approval['next']}",
            DENIED,
        )
        self.approval = approval


class ApiError(CliError):
    """The admin API refused. status: the HTTP status; problem: its RFC 9457 body."""

    def __init__(self, status: int, problem: dict[str, object], message: str) -> None:
        super().__init__(message, DENIED if status in (401, 403) else FAILED)
        self.status = status
        self.problem = problem
