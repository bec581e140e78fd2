"""Where a call goes: a server, and a path with its expressions filled in."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urljoin

from scheduler.documents.styles import WrongCall

EXPRESSION = re.compile(r"\{([^{}]+)\}")
ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)
LITERAL: Final = "%:@!$&'()*+,;="
SEND_URL: Final = "send url with the spec or the process"
"""How a reason ends for which an operation cannot be called without one."""


def base(servers: list[str], *, given: str | None, url: str | None) -> str:
    """Return the URL that paths are appended to. Raises WrongCall.

    `given` with the call wins, and then `url`, that of its spec: whoever names one knows better
    than the document, of which the first server counts. A relative one is joined with `url` (RFC
    3986, 5); `/` is what a document without servers means (OpenAPI 3.1, 4.8.1), so it leaves a
    path in `url` as it is.
    """
    if given:
        return given
    server = servers[0] if servers else "/"
    if ABSOLUTE.match(server):
        return url or server
    if not url:
        raise WrongCall(
            f"the server {server} of the document is relative; send `url`, such as https://example.com"
            if servers
            else "the document names no server; send `url`, such as https://example.com"
        )
    try:
        return url if server in {"", "/", "."} else urljoin(url, server)
    except ValueError as error:
        raise WrongCall(f"url: it must be like https://example.com ({error})") from None


def address(base: str, template: str, values: Mapping[str, str], pairs: list[str]) -> str:
    """Return the URL of a call. Raises WrongCall where a value would change what the path is."""
    start, _, query = base.partition("#")[0].partition("?")
    path, own = parsed(template)
    segments = [_filled(segment, values) for segment in path]
    asked = "&".join([each for each in (query, own, *pairs) if each])
    return f"{start.removesuffix('/')}/{'/'.join(segments)}{'?' if asked else ''}{asked}"


def _filled(segment: tuple[str, ...], values: Mapping[str, str]) -> str:
    if len(segment) == 1:
        return segment[0]
    text = "".join([values[part] if index % 2 else part for index, part in enumerate(segment)])
    if unquote(text) in {".", ".."}:
        names = " and ".join(segment[1::2])
        raise WrongCall(f"{names} must not make `.` or `..` of a part of the path")
    return text


@lru_cache(4096)
def parsed(template: str) -> tuple[list[tuple[str, ...]], str]:
    """Return the segments of a path, and its query.

    Each segment is literal text and names in turn. Some documents tell operations apart by a query
    or a fragment in the path; the one is sent.
    """
    path, _, query = template.partition("#")[0].partition("?")
    segments = [EXPRESSION.split(segment) for segment in path.removeprefix("/").split("/")]
    literal = [
        tuple(part if index % 2 else quote(part, LITERAL) for index, part in enumerate(segment))
        for segment in segments
    ]
    return literal, quote(query, LITERAL + "/?")


def expressions(template: str) -> list[str]:
    """Return the names in a path, in their order."""
    return [name for segment in parsed(template)[0] for name in segment[1::2]]
