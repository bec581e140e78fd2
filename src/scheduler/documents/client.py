"""The client: an OpenAPI document compiled into a table of operations that can be called."""

from typing import Any, Literal

import msgspec

Place = Literal["path", "query", "header", "cookie"]
Style = Literal[
    "simple", "label", "matrix", "form", "spaceDelimited", "pipeDelimited", "deepObject"
]


class Parameter(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """A parameter of an operation (OpenAPI 3.1, 4.8.12)."""

    name: str
    in_: Place = msgspec.field(name="in")
    type: str | None = None
    """Of its schema; None where that names none, or several."""
    required: bool = False
    default: Any = None
    enum: list[Any] | None = None
    style: Style = "form"
    explode: bool = False
    allow_reserved: bool = False
    media_type: str | None = None
    """Its value is written as this (`content`), and not by its style."""


class Encoding(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """How one property of a form is written (OpenAPI 3.1, 4.8.15)."""

    content_type: str | None = None
    style: Style = "form"
    explode: bool = True
    allow_reserved: bool = False
    binary: bool = False
    """Its value is base64 of the bytes to be sent (`format: binary`, or a `contentMediaType`)."""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Of its part of multipart/form-data."""


class Media(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """One form that a body can have."""

    type: str
    """Like application/json, in lower case, with its parameters as they are written."""
    encoding: dict[str, Encoding] = msgspec.field(default_factory=dict)
    """By property, of forms; under an empty name where the whole body is binary."""


class Scheme(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """A security scheme (OpenAPI 3.1, 4.8.27) that a spec's headers can fill."""

    kind: Literal["apiKey", "basic", "bearer", "other"]
    in_: Literal["query", "header", "cookie"] = msgspec.field(name="in", default="header")
    name: str = "Authorization"
    """Of the header, query parameter or cookie."""


class Operation(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """One operation: all that is needed to build a request for it."""

    method: str
    """In upper case."""
    path: str
    """The template, as the document writes it."""
    id: str | None = None
    summary: str | None = None
    deprecated: bool = False
    parameters: list[Parameter] = msgspec.field(default_factory=list)
    body: list[Media] = msgspec.field(default_factory=list)
    """In the order of the document; empty where it takes none."""
    body_required: bool = False
    servers: list[str] = msgspec.field(default_factory=list)
    """With the defaults of their variables filled in; relative ones as they are."""
    security: list[dict[str, Scheme]] = msgspec.field(default_factory=list)
    """One of these sets, each by the names of its schemes; empty where it needs none."""
    refused: str | None = None
    """Why it cannot be called."""

    @property
    def endpoint(self) -> str:
        """Return its name, like `GET /pets/{id}`."""
        return f"{self.method} {self.path}"


class Client(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a whole document compiles to."""

    title: str = ""
    version: str = ""
    """Of the document, as it says."""
    openapi: str = ""
    servers: list[str] = msgspec.field(default_factory=list)
    headers: list[str] = msgspec.field(default_factory=list)
    """Headers that operations or security schemes name, as they are written first."""
    size: int = 0
    """Of its operations: bytes of what they are sent with, about."""
    operations: list[Operation] = msgspec.field(default_factory=list)
    """In the order of the document."""
