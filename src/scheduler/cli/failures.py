"""How a command that talks to the API fails: a sentence, and an exit code.

1   the API refused, or the thing failed
2   wrong usage; click's own, and `Usage` here
3   the server cannot be reached
130 interrupted
"""

from typing import IO, Any, ClassVar

import click

from scheduler.cli import plain


class Failed(click.ClickException):
    """The API refused, or the thing failed."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.told = message
        """The sentence, which may grow on its way."""

    def show(self, _file: IO[Any] | None = None) -> None:
        """Say what is wrong, on standard error."""
        click.echo(f"scheduler: {plain.body(self.told)}", err=True)


class Refused(Failed):
    """The API answered with an error; `status` is the HTTP status, 0 where it has none."""

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Usage(Failed):
    """The command was told too little, or two things at once."""

    exit_code = 2


class Unreached(Failed):
    """The server cannot be reached, or went away before it answered."""

    exit_code = 3
