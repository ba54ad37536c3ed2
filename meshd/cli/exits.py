"""How meshctl ends: its exit codes, and the errors that lead to them.

Rules: every error is one line that says what is wrong, and a second that says what to do
next where there is anything to do. Both go to stderr, so that stdout stays parseable.
"""

from enum import IntEnum
from typing import IO, Any, ClassVar

import click


class Exit(IntEnum):
    """Exit codes for scripts."""

    OK = 0
    NO = 1
    """The answer is no: different, unhealthy, not found, refused."""
    USAGE = 2
    UNREACHABLE = 3
    TIMED_OUT = 4


class CliError(click.ClickException):
    """Ends the command with `exit_code`, one line on stderr, and a line of advice.

    CliError
    +-- UsageProblem   2  the command line, or what it carries, is wrong
    +-- Unreachable    3  no daemon answered
    +-- TimedOut       4  the answer or the awaited state did not come in time
    +-- ApiRefused     1  the daemon answered with an error (2 where the input was at fault)
    """

    exit_code: ClassVar[int] = Exit.NO

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the error, and the advice below it."""
        click.echo(f"meshctl: {self.message}", file=file, err=file is None)
        if self.hint:
            click.echo(f"  {self.hint}", file=file, err=file is None)


class UsageProblem(CliError):
    """Something that was typed cannot be right."""

    exit_code = Exit.USAGE


class Unreachable(CliError):
    """No daemon answered at any address that was tried."""

    exit_code = Exit.UNREACHABLE


class TimedOut(CliError):
    """The daemon is there, but the answer or the awaited state did not come in time."""

    exit_code = Exit.TIMED_OUT


class ApiRefused(CliError):
    """The daemon answered with an error body (`error`, `code`, perhaps `field`).

    `status` is the HTTP status, `code` the body's code, `body` the whole body.
    """

    def __init__(
        self, message: str, *, status: int, code: str, body: dict[str, Any], hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.body = body


class InputRefused(ApiRefused):
    """The daemon refused what was typed (HTTP 400, 413, 422)."""

    exit_code: ClassVar[int] = Exit.USAGE


class NoSuchRoute(ApiRefused):
    """The daemon does not know the path at all: it is older than this meshctl."""
