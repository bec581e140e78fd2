"""The review: a request is built for every operation from the document itself, and checked."""

from typing import Any

import msgspec

from scheduler.answering import Spent, limited
from scheduler.documents.addresses import ABSOLUTE, SEND_URL
from scheduler.documents.checking import Checker
from scheduler.documents.client import Operation
from scheduler.documents.messages import Review, Reviewed
from scheduler.documents.notation import quoted
from scheduler.documents.operation import Arguments, WrongCall, build
from scheduler.documents.references import resolved
from scheduler.documents.samples import FORMATS, Sampler
from scheduler.documents.styles import JSON

NO_SERVER = f"names no server; {SEND_URL}"
SLOW_S = 0.5
"""CPU time for one operation."""
SLOW_MOST = 10
"""Operations; after them no more are tried."""
REASON = 500
"""Characters."""

OPERATIONS = msgspec.json.Decoder(Operation)


def reviewed(ask: Review) -> Reviewed:
    """Return which operations of a document cannot be called.

    One whose check takes too long (a pattern may) is not refused for that.
    """
    document = msgspec.json.decode(ask.document)
    checker = Checker(document)
    refused, slow = {}, 0
    for written in ask.operations:
        operation = OPERATIONS.decode(written)
        reason = operation.refused or _no_address(operation, ask.url)
        if reason is None and slow < SLOW_MOST:
            try:
                with limited(SLOW_S):
                    reason = _misfit(document, checker, operation, ask.url)
            except Spent:
                slow += 1
        if reason is not None:
            refused[operation.endpoint] = reason[:REASON]
    return Reviewed(refused)


def _no_address(operation: Operation, url: str | None) -> str | None:
    if url:
        return None
    if not operation.servers:
        return NO_SERVER
    server = operation.servers[0]
    if ABSOLUTE.match(server):
        return None
    if "://" in server:
        return f"its server {quoted(server)} is no address of http or https; {SEND_URL}"
    return f"its server {quoted(server)} is relative; {SEND_URL}"


def _misfit(
    document: dict[str, Any], checker: Checker, operation: Operation, url: str | None
) -> str | None:
    """Return why a call made of the document itself does not fit it."""
    wrong = None
    for examples in (True, False):  # those of a document are often wrong themselves
        sampler = Sampler(document, examples=examples)
        try:
            request = build(
                operation, _arguments(sampler, document, operation), headers={}, url=url
            )
            wrong = checker.check(operation.endpoint, request)
        except WrongCall as e:
            wrong = str(e)
        except Exception:  # noqa: BLE001  # no sample can be made, which says nothing about calls
            return None
        if wrong is None:
            return None
    if not sampler.sure:
        return None
    return f"a call made of the document itself does not fit it: {quoted(wrong)}"


def _arguments(sampler: Sampler, document: dict[str, Any], operation: Operation) -> Arguments:
    """Return what an operation asks for at least."""
    item = resolved(document, document["paths"][operation.path])
    node = item[operation.method.lower()]
    nodes = {}
    for each in (*item.get("parameters", ()), *node.get("parameters", ())):
        one = resolved(document, each)
        nodes[one["in"], one["name"]] = one
    query: dict[str, Any] = {}
    path: dict[str, Any] = {}
    headers: dict[str, str] = {}
    for parameter in operation.parameters:
        if parameter.required:
            value = sampler.of_media(_described(nodes[parameter.in_, parameter.name]))
            sampler.sure &= value not in ({}, [])  # of which nothing is sent
            if parameter.in_ == "path":
                path[parameter.name] = value
            elif parameter.in_ == "query" or parameter.name not in query:
                query[parameter.name] = value
            else:
                headers[parameter.name] = str(value)
    body = _body(sampler, resolved(document, node.get("requestBody")), operation)
    return Arguments(headers=headers, query=query, path=path, body=body)


def _described(parameter: dict[str, Any]) -> dict[str, Any]:
    """Return what describes a parameter's value: its media type, where it has one."""
    content = parameter.get("content")
    media = next(iter(content.values()), None) if isinstance(content, dict) else None
    return media if isinstance(media, dict) else parameter


def _body(sampler: Sampler, node: Any, operation: Operation) -> bytes | None:
    """Return the JSON of a body in the form in which it is sent, where there must be one."""
    if not operation.body_required or not operation.body:
        return None
    offered = list(zip(operation.body, node["content"].values(), strict=True))
    media, described = next((each for each in offered if JSON.fullmatch(each[0].type)), offered[0])
    if "" in media.encoding:
        return msgspec.json.encode(FORMATS["binary"])
    return msgspec.json.encode(sampler.of_media(described))
