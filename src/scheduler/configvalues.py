"""One value of the settings: what its type takes, in words, and how people write it."""

import difflib
import ipaddress
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

NEAR = 0.7
"""How like a setting's name a variable's must be to be taken for a slip (`difflib`, 0 to 1)."""
YES_AND_NO = {"yes": True, "on": True, "no": False, "off": False}
"""Beside true, false, 1 and 0; in a file YAML reads them so by itself."""


def expected(kind: Any) -> str:
    """Return what a setting of a type takes, in words: `a whole number from 1 to 10000`."""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    words = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
    found = words.get(bare, "a list")
    if get_origin(kind) is not Annotated:
        return found
    meta = get_args(kind)[1]
    if meta.ge is not None and meta.le is not None:
        return f"{found} from {meta.ge} to {meta.le}"
    low = f" above {meta.gt}" if meta.gt is not None else f" of at least {meta.ge}"
    return f"{found}{low}" + (f" and at most {meta.le}" if meta.le is not None else "")


def as_meant(value: Any, kind: Any) -> Any:
    """Return text as its setting wants it: a list at its commas, a level in lower case."""
    if not isinstance(value, str):
        return value
    if kind == list[str]:
        return [part.strip() for part in value.split(",") if part.strip()]
    if kind is bool:
        return YES_AND_NO.get(value.strip().lower(), value)
    if get_origin(kind) is Literal:
        return {"warning": "warn"}.get(value.lower(), value.lower())
    return value


def no_cidr(values: list[str]) -> str:
    """Return why one of the values is no CIDR; empty where all are."""
    for cidr in values:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as e:
            return str(e)
    return ""


def unfit(path: str, value: Any) -> str:
    """Return what is expected instead of a value that its type lets pass; empty where it may."""
    if path == "server.host" and (not value or value != value.strip()):
        return "an address to listen on, like 127.0.0.1, or 0.0.0.0 for all of this machine's"
    if path.endswith("token") and value and not (value.isprintable() and value == value.strip()):
        return "text without line ends, and without spaces at its ends"
    return ""


def slips(variables: Iterable[str], names: list[tuple[str, str]]) -> list[str]:
    """Return a sentence for each variable that is nearly one of ours: (section, name) each."""
    known = {f"{section}_{name}" for section, name in names}
    found = []
    for variable in sorted(variables):
        section, _, rest = variable.partition("_")
        if variable not in known:
            own = [name for each, name in names if each == section]
            nearest = difflib.get_close_matches(rest, own, n=1, cutoff=NEAR)
            found += [f"{variable} sets nothing; did you mean {section}_{n}?" for n in nearest]
    return found
