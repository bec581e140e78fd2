"""What is asked of the child process in which documents are read, and what it answers.

The child is not trusted with anything but the document: no settings, no database, no secret.
"""

from typing import Literal

import msgspec

from scheduler.documents.client import Client


class Limits(msgspec.Struct, frozen=True):
    """What a document may hold."""

    max_bytes: int
    max_depth: int
    max_operations: int


class Read(msgspec.Struct, tag=True, frozen=True):
    """Look whether this is an OpenAPI 3 document at all."""

    source: bytes
    limits: Limits


class Compile(msgspec.Struct, tag=True, frozen=True):
    """Validate a document, and compile it."""

    source: bytes
    limits: Limits


class Review(msgspec.Struct, tag=True, frozen=True):
    """Build a request for every operation from the document itself, and check it."""

    document: bytes
    operations: list[bytes]
    """Of its client, each as JSON: nobody has to read all of them in one go."""
    url: str | None
    """Where the document names no server."""


class Request(msgspec.Struct, frozen=True):
    """A request as it would be sent."""

    method: str
    url: str
    """Absolute, with its query."""
    headers: list[tuple[str, str]]
    body: bytes = b""


class Check(msgspec.Struct, tag=True, frozen=True):
    """Check a request against an operation of a document that the child may know."""

    document: str
    """What the document is called, for ever: a key and the number of a draft."""
    endpoint: str
    request: Request
    source: bytes | None = None
    """The document, as in Learn, for a child that was asked for too many others meanwhile."""
    most_bytes: int = 256 << 10
    """A longer body is not looked at: a megabyte takes some three seconds."""


class Describe(msgspec.Struct, tag=True, frozen=True):
    """Say what an operation can be called with, for a form; the rest as in Check."""

    document: str
    endpoint: str
    source: bytes | None = None


class Learn(msgspec.Struct, tag=True, frozen=True):
    """Remember a document, as it was compiled."""

    name: str
    document: bytes


Ask = Read | Compile | Review | Check | Describe | Learn


class Finding(msgspec.Struct, tag=True, frozen=True):
    """What is wrong, and where: `paths./pets.get.parameters[0]: ...`."""

    message: str
    spent: bool = False
    """It took too long, or too much memory: nothing was found."""


class Fine(msgspec.Struct, tag=True, frozen=True):
    """Nothing is wrong."""


class Compiled(msgspec.Struct, tag=True, frozen=True):
    """A document in JSON, with its aliases gone and its keys texts, and its client."""

    document: bytes
    client: Client
    """Without its operations."""
    operations: list[bytes]
    """As in Review."""


class Reviewed(msgspec.Struct, tag=True, frozen=True):
    """By endpoint, why it cannot be called."""

    refused: dict[str, str]


class Field(msgspec.Struct, kw_only=True, frozen=True):
    """One value that an operation takes; all of it is text of the document."""

    name: str
    place: Literal["path", "query", "header", "cookie", "body"]
    kind: str | None = None
    """The type in its schema; None where that names none, or several."""
    required: bool = False
    choices: list[str] = []
    sample: str = ""
    """What fits, as it is typed in; nothing where it may be left out and no example is named."""
    about: str = ""

    @property
    def long(self) -> bool:
        """Say whether it is written as JSON."""
        return self.kind in ("object", "array")


class Form(msgspec.Struct, tag=True, kw_only=True, frozen=True):
    """What an operation can be called with."""

    fields: list[Field]
    body: str | None = None
    """One that fits, as JSON text; None where it takes none."""
    body_type: str = ""
    body_required: bool = False
    about: str = ""


class Unknown(msgspec.Struct, tag=True, frozen=True):
    """The child does not know the document: send it, and ask again."""


class Unasked(msgspec.Struct, tag=True, frozen=True):
    """The child came to its end before this ask: it is to be asked again."""


Answer = Finding | Fine | Compiled | Reviewed | Form | Unknown | Unasked


class Asked(msgspec.Struct, frozen=True):
    """An ask, and the CPU time in seconds that it may take."""

    ask: Ask
    seconds: float


class Said(msgspec.Struct, frozen=True):
    """The answers to a list of asks."""

    answers: list[Answer]
    last: bool = False
    """The child is to be asked no more: something was left in the middle."""
