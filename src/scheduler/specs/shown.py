"""Specs as the outside sees them: what is sent in, and what is answered."""

import base64
from typing import Any

import msgspec
import yaml
from msgspec import UNSET, UnsetType

from scheduler.clock import Slice
from scheduler.db import rfc3339
from scheduler.documents.client import Operation
from scheduler.masking import MASK
from scheduler.sealing import SealError, Vault
from scheduler.specs import model
from scheduler.specs.listing import Serving, Whole
from scheduler.specs.model import Status, Stored

MESSAGES: dict[Status, str] = {
    "WAITING": "The spec has been created and it is now waiting to be processed.",
    "IN_PROGRESS": "The spec is being processed.",
    "READY_YAML": "The spec yaml configuration file has been generated.",
    "READY_CLIENT": "The client code has been generated.",
    "SUCCESS": "The spec has been completed successfully.",
    "ERROR": "The spec has one or more errors.",
}
STEPS: dict[Status, str] = {
    "WAITING": "Received in the API",
    "IN_PROGRESS": "Received in the worker",
    "READY_YAML": "Spec YAML file generated",
    "READY_CLIENT": "Client code generated (not reviewed)",
    "SUCCESS": "Client code generated and reviewed",
}
"""In the order in which they are taken."""


class SpecFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be sent of a spec; an update changes exactly the fields it sends."""

    name: str | UnsetType = UNSET
    headers: dict[str, Any] | UnsetType = UNSET
    spec: str | UnsetType = UNSET
    url: str | UnsetType | None = UNSET
    trace_id: Any = UNSET
    status: Any = UNSET
    client: Any = UNSET
    created_at: Any = UNSET
    updated_at: Any = UNSET


class CreatedSpec(msgspec.Struct):
    """A spec just created."""

    trace_id: str


class SpecStatus(msgspec.Struct, kw_only=True):
    """How far a spec has come."""

    status: Status
    message: str
    error: str | UnsetType = UNSET
    step: list[str]


class SpecParameter(msgspec.Struct):
    """A parameter of an endpoint."""

    default: Any
    enum: list[Any] | None
    name: str
    in_: str = msgspec.field(name="in")
    type: str | None
    required: bool


class SpecClient(msgspec.Struct):
    """What a spec's document compiled to."""

    endpoints: dict[str, list[SpecParameter]]
    headers: list[str]
    servers: list[str]
    url: str | None
    refused: dict[str, str] | UnsetType = UNSET


class Spec(msgspec.Struct, kw_only=True):
    """A spec as it is answered."""

    trace_id: str
    created_at: str | None
    updated_at: str | None
    name: str
    status: SpecStatus
    client: SpecClient | UnsetType = UNSET
    spec: str | UnsetType = UNSET
    headers: dict[str, str]


class SpecList(msgspec.Struct):
    """A page of specs, the newest first."""

    count: int
    results: list[Spec]


def status_of(of: Stored) -> SpecStatus:
    """Return how far a spec has come; one that failed keeps the steps it took."""
    taken = list(STEPS).index(of.reached) + 1
    error = UNSET if of.error is None else of.error
    step = list(STEPS.values())[:taken]
    return SpecStatus(status=of.status, message=MESSAGES[of.status], error=error, step=step)


async def shown(found: Whole, vault: Vault, *, client: bool) -> Spec:
    """Return a spec as its own service sees it: with its headers as they were sent."""
    of = found.of
    return Spec(
        trace_id=of.trace_id,
        created_at=rfc3339(of.created_at),
        updated_at=rfc3339(of.updated_at),
        name=of.name,
        status=status_of(of),
        client=await _client(of, found.serving) if client else UNSET,
        spec=UNSET if found.source is None else base64.b64encode(found.source).decode(),
        headers=_headers(of, vault),
    )


def _headers(of: Stored, vault: Vault) -> dict[str, str]:
    """Return the headers; one whose key is lost is masked, and kept where that is sent back."""
    found = dict[str, str]()
    for name, value in of.headers.items():
        try:
            found |= model.opened(vault, of.service_id, {name: value})
        except SealError:
            found[name] = MASK
    return found


async def _client(of: Stored, serving: Serving | None) -> SpecClient:
    if serving is None:
        return SpecClient({}, list(of.headers), [], of.url)
    client, refused = serving.client, dict(serving.refused)
    endpoints, turn = dict[str, list[SpecParameter]](), Slice()
    for each in client.operations:
        endpoints[each.endpoint] = _parameters(each)
        if each.refused is not None:
            refused.setdefault(each.endpoint, each.refused)
        await turn.give_way()
    named = {name.lower() for name in client.headers}
    return SpecClient(
        endpoints=endpoints,
        headers=client.headers + [name for name in of.headers if name.lower() not in named],
        servers=client.servers,
        url=of.url or next(iter(client.servers), None),
        refused=refused or UNSET,
    )


def _parameters(of: Operation) -> list[SpecParameter]:
    return [
        SpecParameter(each.default, each.enum, each.name, each.in_, each.type, each.required)
        for each in of.parameters
    ]


def metadata_file(of: Stored) -> str:
    """Return what an older program kept beside a document, as YAML."""
    named = yaml.safe_dump(
        {"trace_id": of.trace_id, "name": of.name}, sort_keys=False, allow_unicode=True, width=1000
    )
    return f'{named}updated_at: "{rfc3339(of.updated_at)}"\n'
