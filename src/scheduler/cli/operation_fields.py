"""How the flags of a call through a spec are read."""

import re

import msgspec
from msgspec import Raw

from scheduler.cli.failures import Usage

NAMED = re.compile(r"([A-Za-z]+)\s+(/.*)", re.DOTALL)
Values = dict[str, str | list[str]]


def parameters(flag: str, lines: tuple[str, ...]) -> Values:
    """Return parameters by name; what is there twice is an array. Raises Usage."""
    found = Values()
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or not name:
            raise Usage(f"{flag} is NAME=VALUE, with an equals sign")
        if name in found:
            before = found[name]
            found[name] = [*before, value] if isinstance(before, list) else [before, value]
        else:
            found[name] = value
    return found


def endpoint(text: str, method: str | None) -> dict[str, str]:
    """Return the fields of `GET /pets/{id}`, or of a path alone. Raises Usage."""
    named = NAMED.fullmatch(text.strip())
    if named is None:
        return {"endpoint": text}
    word, path = named.groups()
    if method is not None and method.upper() != word.upper():
        raise Usage(f"--endpoint says {word}, and --method says {method}; give one")
    return {"method": word.upper(), "endpoint": path}


def json(flag: str, text: str) -> Raw:
    """Return what is JSON as it is written. Raises Usage."""
    raw = text.strip().encode(errors="surrogateescape")
    try:
        msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise Usage(f"{flag} is not JSON: {e}") from None
    return Raw(raw)
