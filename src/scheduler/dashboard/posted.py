"""Larger forms: their fields as they were sent, each as often as it is there."""

import asyncio
from collections import defaultdict
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.datastructures import State

from scheduler.dashboard import carried, door
from scheduler.dashboard.door import Visitor
from scheduler.errors import InvalidRequest

MOST = 2 << 20
"""Bytes of a form that holds a task; percent-encoding makes three of one."""
FIELDS_MOST = 1000
LONG = 64 << 10
"""Bytes that are decoded beside the loop."""


class Posted(msgspec.Struct, frozen=True):
    """The fields of a form."""

    fields: dict[str, list[str]]

    def one(self, name: str) -> str:
        """Return a field's value, the last where it is there several times; empty for none."""
        found = self.fields.get(name)
        return found[-1] if found else ""

    @property
    def again(self) -> bool:
        """Say whether the form is only to be shown."""
        return carried.AGAIN in self.fields

    def all(self, name: str) -> list[str]:
        """Return all values of a field, in their order."""
        return self.fields.get(name, [])


async def posted(request: Request[Any, Any, Any], state: State, of: Visitor) -> Posted:
    """Return the fields of a form of this session; it may be one that is only to be shown.

    Raises Forbidden and InvalidRequest.
    """
    body = await request.body()
    try:
        text = body.decode("ascii")
        pairs = await asyncio.to_thread(_pairs, text) if len(text) > LONG else _pairs(text)
    except ValueError:
        raise InvalidRequest("the form cannot be read") from None
    fields = defaultdict[str, list[str]](list)
    for name, value in pairs:
        fields[name].append(value)
    made = Posted(fields)
    sent = {name: made.one(name) for name in fields}
    await door.check(request, state, of, sent, again=True)
    return made


def _pairs(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MOST, errors="replace")
