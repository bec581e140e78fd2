"""Reading a command: its line for the shell, and what its environment holds."""

import re
from typing import Any

from scheduler import sealing
from scheduler.actions import Command
from scheduler.masking import MASK
from scheduler.tasks.reading import Reader, short

COMMAND_MOST = 64 << 10
"""Bytes of a command line: Linux gives a program 128 KiB in one argument (MAX_ARG_STRLEN)."""
ENV_MOST = 100
"""Variables."""
ENV_BYTES_MOST = 64 << 10
"""Of their names and values together."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
"""Of a variable: what every shell can read (POSIX.1, 8.1, and lower case)."""


def read_command(reader: Reader, stored: Command) -> Command:
    """Return the command that the body makes of the stored one."""
    return Command(_line(reader, stored.command), _env(reader, stored))


def _line(reader: Reader, stored: str) -> str:
    line: str = reader.sent("command", stored) or ""
    if not line.strip():
        reader.say("command", "is needed: a line for sh, like echo hello; or send a url")
    elif "\x00" in line:
        reader.say("command", "must not hold a NUL character")
    elif (size := len(line.encode())) > COMMAND_MOST:
        reader.say(
            "command",
            f"must have at most {COMMAND_MOST} bytes, has {size}; put what is longer into a file",
        )
    return line


def _env(reader: Reader, stored: Command) -> dict[str, str]:
    sent: Any = reader.sent("env", stored.env) or {}
    if len(sent) > ENV_MOST:
        reader.say("env", f"at most {ENV_MOST} variables, has {len(sent)}")
        return {}
    secret, read = stored.secrets(sent), dict[str, str]()
    for name, value in sent.items():
        place = f"env.{name[:100]}"
        if not NAME.fullmatch(name):
            reader.say(place, "a name has letters, digits and _, no digit first, 255 at most")
        if not isinstance(value, str):
            reader.say(place, f"must be a string, is {_said(value)}; write it in quotes")
        elif value == MASK and (name in secret or sealing.is_sealed(stored.env.get(name, ""))):
            if name not in stored.env:
                reader.say(place, f"has no stored value that {MASK} could keep")
            read[name] = stored.env.get(name, "")
        else:
            read[name] = value
            if name not in stored.env or value != stored.env[name]:
                _check(reader, place, value)
    size = sum(len(name.encode()) + sealing.plain_size(text) for name, text in read.items())
    if read != stored.env and size > ENV_BYTES_MOST:
        reader.say("env", f"must have at most {ENV_BYTES_MOST} bytes, has {size}")
    return read


def _check(reader: Reader, place: str, value: str) -> None:
    if "\x00" in value:
        reader.say(place, "must not hold a NUL character")
    elif value.startswith(sealing.MARK):
        reader.say(place, "must not begin with the character U+0001")


def _said(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return short(value)
