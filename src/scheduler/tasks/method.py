"""Reading the method of a call."""

from typing import get_args

from scheduler.actions.http import Method
from scheduler.tasks.reading import Reader


def read_method(reader: Reader, stored: str | None) -> Method | None:
    """Return the method that is sent, in upper case, or what is stored; None for no word of it."""
    method: str | None = reader.sent("method", stored)
    if not method:
        return None
    if method.upper() not in get_args(Method):
        reader.say("method", f"must be one of {', '.join(get_args(Method))}")
        return None
    return method.upper()  # type: ignore[return-value]
