"""Servers: where a document says that its operations are served."""

import re
from typing import Any

from scheduler.documents.notation import Path, Wrong, quoted

MAX_SERVERS = 100
MAX_URL = 8192
VARIABLES = re.compile(r"\{([^{}]*)\}")


def servers(node: Any, here: Path) -> list[str]:
    """Return URLs with their variables filled in (OpenAPI 3.1, 4.8.5). Raises Wrong."""
    found = []
    for index, one in enumerate(node or ()):
        if index == MAX_SERVERS:
            raise Wrong(here, f"has more than {MAX_SERVERS} servers")
        found.append(_url(one, (here, index)))
    return found


def _url(server: Any, here: Path) -> str:
    if not isinstance(server, dict) or not isinstance(server.get("url"), str):
        raise Wrong(here, "is no server; it must have a url")
    variables = server.get("variables")
    values = {
        name: _default(variable, ((here, "variables"), name))
        for name, variable in (variables.items() if isinstance(variables, dict) else ())
    }

    def filled(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            what = f"names {{{quoted(name)}}}, which has no default; give it one under variables"
            raise Wrong((here, "url"), what)
        return values[name]

    template = server["url"]
    if len(template) > MAX_URL:
        raise Wrong((here, "url"), f"is longer than {MAX_URL} characters")
    url = VARIABLES.sub(filled, template)
    if len(url) > MAX_URL:
        raise Wrong((here, "url"), f"is longer than {MAX_URL} characters with its variables")
    return url


def _default(variable: Any, here: Path) -> str:
    if not isinstance(variable, dict) or not isinstance(variable.get("default"), str):
        raise Wrong((here, "default"), "is no text")
    default: str = variable["default"]
    allowed = variable.get("enum")
    if len(default) > MAX_URL:
        raise Wrong((here, "default"), f"is longer than {MAX_URL} characters")
    if isinstance(allowed, list) and default not in allowed:
        words = quoted(", ".join(map(str, allowed[:20])))
        raise Wrong((here, "default"), f"{quoted(default)} is none of {words}")
    return default
