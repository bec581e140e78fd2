"""What a check finds, and how long it may take."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from scheduler import db, logs
from scheduler.masking import mask

CHECK_S = 4.0
"""What one check may take: a database or a network that hangs is a finding, too."""

State = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One line of what doctor says; `todo` is what to do, empty where all is well."""

    name: str
    state: State
    said: str
    todo: str = ""


def ok(name: str, said: str) -> Finding:
    """Return that something is well."""
    return Finding(name, "ok", said)


def warn(name: str, said: str, todo: str) -> Finding:
    """Return that something works, and may not for long, or not as someone thinks."""
    return Finding(name, "warn", said, todo)


def fail(name: str, said: str, todo: str) -> Finding:
    """Return that something does not work."""
    return Finding(name, "fail", said, todo)


Check = Callable[[], Awaitable[list[Finding]]]


async def checked(name: str, check: Check, todo: str) -> list[Finding]:
    """Do one check; what it raises, or that it hangs, becomes a finding with this `todo`."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await check()
    except TimeoutError:
        return [fail(name, f"no answer within {CHECK_S:g} s", todo)]
    except Exception as e:  # noqa: BLE001  (whatever it is, the other checks go on)
        return [fail(name, words(e), todo)]


def words(error: BaseException) -> str:
    """Return what an error says, on one line and without a secret."""
    said = mask(logs.cut(str(getattr(error, "orig", None) or error))).strip()
    first = said.splitlines()[0] if said else ""
    away = ", the database is away" if db.is_away(error) and not first else ""
    return first.rpartition("Error'>: ")[2] or f"{type(error).__name__}{away}"
