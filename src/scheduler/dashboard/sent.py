"""Large forms: documents that are uploaded, and calls that are tried, each with a limit of its own.

A handler that reads one lifts the limit that holds for all other forms (`request_max_body_size`).
"""

import asyncio
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request
from litestar.datastructures import State, UploadFile
from litestar.exceptions import HTTPException, SerializationException

from scheduler.dashboard import carried, door
from scheduler.dashboard.door import Visitor
from scheduler.errors import InvalidRequest, PayloadTooLarge

FIELDS_MOST = 1000
LONG = 64 << 10
"""Bytes that are decoded beside the loop."""

AnyRequest = Request[Any, Any, Any]


class Sent:
    """The fields of a form; a name may be there more than once."""

    def __init__(self, pairs: list[tuple[str, str]], files: dict[str, bytes]) -> None:
        self._pairs = pairs
        self.files = files
        """By field, what was uploaded; what is empty is left out."""

    def one(self, name: str) -> str:
        """Return the last value of a field; nothing where it is not there."""
        found = self.all(name)
        return found[-1] if found else ""

    @property
    def again(self) -> bool:
        """Say whether the form is only to be shown."""
        return bool(self.one(carried.AGAIN))

    def all(self, name: str) -> list[str]:
        """Return the values of a field, in their order."""
        return [value for key, value in self._pairs if key == name]


async def own(
    request: AnyRequest, state: State, of: Visitor, most: int, limit: str, *, again: bool = False
) -> Sent:
    """Return a form of this session, of at most so many bytes; `limit` names the setting.

    One that is only to be shown, where the caller looks for that: it has `again`.

    Raises Forbidden for one from elsewhere, PayloadTooLarge and InvalidRequest.
    """
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise InvalidRequest("a form says how long it is (Content-Length)")
    if int(length) > most:
        raise PayloadTooLarge(f"the form has more than {most} bytes ({limit})")
    kind = request.content_type[0]
    sent = await (_multipart(request) if kind == "multipart/form-data" else _plain(request))
    fields = {name: sent.one(name) for name in ("form", carried.AGAIN, carried.BEFORE)}
    await door.check(request, state, of, {k: v for k, v in fields.items() if v}, again=again)
    return sent


async def _plain(request: AnyRequest) -> Sent:
    try:
        body = (await request.body()).decode("ascii")
        pairs = await asyncio.to_thread(_pairs, body) if len(body) > LONG else _pairs(body)
    except ValueError:
        raise InvalidRequest("the form cannot be read") from None
    return Sent(pairs, {})


def _pairs(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MOST, errors="replace")


async def _multipart(request: AnyRequest) -> Sent:
    pairs, files = list[tuple[str, str]](), dict[str, bytes]()
    try:
        form = await request.form()
    except (HTTPException, SerializationException, ValueError):
        raise InvalidRequest("the form cannot be read") from None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            content = await value.read()
            if content:
                files[name] = content
        else:
            pairs.append((name, str(value)))
    await form.close()
    return Sent(pairs, files)
