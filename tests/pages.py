"""What tests of pages share: signing in, the headers of a page, the statements that it takes."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
from sqlalchemy import event

from conftest import TOKENS, App

SIGN_IN = "/dashboard/sign-in"


def field(text: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found, text
    return found[1]


async def enter(
    client: httpx.AsyncClient, service: str = "alice", token: str | None = None, **fields: str
) -> httpx.Response:
    """Send the form to sign in."""
    asked = await client.get(SIGN_IN)
    sent = {"form": field(asked.text, "form"), "service": service, "next": "/dashboard"}
    sent["token"] = TOKENS["alice"] if token is None else token
    return await client.post(SIGN_IN, data={**sent, **fields})


@asynccontextmanager
async def signed_in(app: App, service: str = "alice") -> AsyncIterator[httpx.AsyncClient]:
    async with app.client() as client:
        answer = await enter(client, service, TOKENS[service])
        assert (answer.status_code, answer.headers["Location"]) == (303, "/dashboard")
        yield client


def safe(answer: httpx.Response) -> None:
    """The headers that every page has."""
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] in ("same-origin", "no-referrer")


@contextmanager
def statements(app: App) -> Iterator[list[str]]:
    """The statements on tables that the API's connections send."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if re.search(r"\b(FROM|INTO|UPDATE)\b", statement):
            seen.append(statement)

    engine = app.database.api.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)
