"""Pages of tasks: where one ends, and where the next begins."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from litestar import Request

from scheduler.definition import Definition
from scheduler.tasklist import PAGE_BYTES


class Page(msgspec.Struct):
    """What is shown, and the `pageNumber` and `count` that go on; None at the end."""

    tasks: Sequence[Definition]
    following: tuple[int, int] | None


def cut(found: Sequence[Definition], number: int, count: int) -> Page:
    """Return the page that begins what was found: `count + 1`, or as much as is read at once.

    One that ends early, because its tasks hold much, is followed by pages as short: the next
    begins where it ends, so a page number that fits has to be there.
    """
    fit = _fitting(found)
    size = min(fit or count, count)
    begin = number * count
    shown = found[: size - begin % size]
    more = fit is not None or len(found) > len(shown)
    return Page(shown, ((begin + len(shown)) // size, size) if more else None)


def _fitting(found: Sequence[Definition]) -> int | None:
    """Return how many tasks fill a page by what they hold; None where all of them do not."""
    size = 0
    for n, of in enumerate(found, 1):
        size += of.size
        if size >= PAGE_BYTES:
            return n
    return None


def links(request: Request[Any, Any, Any], page: Page) -> dict[str, str]:
    """Return the `Link` to the page after this one, as a header; none at the end."""
    if page.following is None:
        return {}
    number, count = page.following
    sent = {**dict(request.query_params.items()), "pageNumber": number, "count": count}
    return {"Link": f'<{request.url.path}?{urlencode(sent)}>; rel="next"'}
