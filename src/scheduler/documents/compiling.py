"""Compiling: a document that is valid becomes a table of operations that can be called."""

import re
from collections import Counter
from typing import Any, get_args

import msgspec

from scheduler.documents import schemas
from scheduler.documents.client import Client, Encoding, Media, Operation, Parameter, Place, Style
from scheduler.documents.messages import Limits
from scheduler.documents.notation import TOP, Path, Wrong, quoted
from scheduler.documents.partheaders import part_headers
from scheduler.documents.references import resolved
from scheduler.documents.security import Requirements
from scheduler.documents.servers import servers

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
NOT_SENT = {"TRACE"}
MAX_PATH = 1000
MAX_TEXT = 1000
"""Characters of a summary or an id."""
WRITTEN_OUT = 2
"""Operations may take so many times `max_bytes` with their references written out."""
STYLES: dict[Place, tuple[Style, ...]] = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
"""By place, the default first (OpenAPI 3.1, 4.8.12.2.1)."""
NO_PARAMETERS = {"accept", "authorization", "content-type"}
"""Of headers, for which parameters are ignored."""
MULTIPART = "multipart/form-data"
FORMS = {"application/x-www-form-urlencoded", MULTIPART}
OF_BYTES = {"application/octet-stream", "application/pdf", "application/zip", "application/gzip"}
BYTES = Encoding(binary=True)
NAMES = re.compile(r"\{([^{}]*)\}")
UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
MOST, LEAST = 2**64, -(2**63)


def client(document: dict[str, Any], limits: Limits) -> Client:
    """Return the client of a document that was validated and settled. Raises Wrong."""
    return _Compiler(document, limits).client()


def count(document: dict[str, Any], limits: Limits) -> None:
    """Raise Wrong where a settled document has too many operations."""
    paths = document.get("paths")
    items = [resolved(document, item) for item in paths.values()] if isinstance(paths, dict) else []
    found = sum(len(item.keys() & set(METHODS)) for item in items if isinstance(item, dict))
    if found > limits.max_operations:
        most = limits.max_operations
        raise Wrong((TOP, "paths"), f"has more than {most} operations (specs.max_operations)")


class _Compiler:
    """One document on the way."""

    def __init__(self, document: dict[str, Any], limits: Limits) -> None:
        self.document = document
        self.limits = limits
        self.requirements = Requirements(document)
        self.headers: dict[str, str] = {}
        """By name in lower case, as written first."""
        self.made: dict[int, tuple[Any, int]] = {}
        """By the id of a node: what it was made, and how much that takes."""
        self.size = 0
        self.templates: dict[tuple[str, str], str] = {}

    def client(self) -> Client:
        """Compile everything."""
        operations = []
        for path, item in (self.document.get("paths") or {}).items():
            if path.startswith("/"):
                operations += self.operations(path, resolved(self.document, item))
        for name in self.requirements.headers():
            self.headers.setdefault(name.lower(), name)
        info = self.document["info"]
        return Client(
            title=str(info["title"])[:MAX_TEXT],
            version=str(info["version"])[:MAX_TEXT],
            openapi=self.document["openapi"],
            servers=servers(self.document.get("servers"), (TOP, "servers")),
            headers=list(self.headers.values()),
            operations=operations,
            size=self.size,
        )

    def operations(self, path: str, item: Any) -> list[Operation]:
        """Compile what stands under one path."""
        here = ((TOP, "paths"), path)
        if len(path) > MAX_PATH:
            raise Wrong(here, f"is longer than {MAX_PATH} characters")
        if not isinstance(item, dict):
            raise Wrong(here, "is no object")
        found = []
        for method in METHODS:
            node = item.get(method)
            if isinstance(node, dict):
                found.append(self.operation(path, method, item, node, (here, method)))
        return found

    def operation(
        self, path: str, method: str, item: dict[str, Any], node: dict[str, Any], here: Path
    ) -> Operation:
        """Compile one operation."""
        parameters, refused = self.parameters(item, node, here)
        inside = {one.name for one in parameters if one.in_ == "path"}
        named = NAMES.findall(path)
        refused = self.not_called(path, method, inside) or refused
        body = resolved(self.document, node.get("requestBody"))
        levels = ((node, here), (item, here[0]), (self.document, TOP))
        at = next(((one, place) for one, place in levels if one.get("servers")), None)
        return Operation(
            method=method.upper(),
            path=path,
            id=_text(node.get("operationId")),
            summary=_text(node.get("summary")),
            deprecated=node.get("deprecated") is True,
            parameters=[one for one in parameters if one.in_ != "path" or one.name in named],
            body=self.bodies(body, (here, "requestBody")),
            body_required=isinstance(body, dict) and body.get("required") is True,
            servers=servers(at[0]["servers"], (at[1], "servers")) if at else [],
            security=self.requirements.of(node, (here, "security")),
            refused=refused,
        )

    def not_called(self, path: str, method: str, inside: set[str]) -> str | None:
        """Return why nothing can be sent to a path."""
        if method.upper() in NOT_SENT:
            return f"{method.upper()} is not sent"
        named = NAMES.findall(path)
        if set("{}") & set(NAMES.sub("", path)) or "" in named:
            return "its path has a brace that names no parameter"
        if UNPRINTABLE.search(path):
            return "its path holds a space or a control character; write it like %20"
        twice = [name for name, count in Counter(named).items() if count > 1]
        if twice:
            return f"its path names {quoted(twice[0])} twice"
        missing = [name for name in named if name not in inside]
        if missing:
            return f"its path names {quoted(missing[0])}, which is no parameter of it"
        first = self.templates.setdefault((method, NAMES.sub("{}", path)), path)
        return None if first == path else f"its path is the same template as {quoted(first)}"

    def parameters(
        self, item: dict[str, Any], node: dict[str, Any], here: Path
    ) -> tuple[list[Parameter], str | None]:
        """Return an operation's parameters, and why it cannot be called with them."""
        found: dict[tuple[str, str], Parameter] = {}
        refused = None
        for level, place in ((item, (here[0], "parameters")), (node, (here, "parameters"))):
            seen: set[tuple[str, str]] = set()
            for index, each in enumerate(level.get("parameters") or ()):
                one = self.parameter(resolved(self.document, each), (place, index))
                key = (one.name, one.in_)
                if key in seen:
                    refused = refused or f"has the parameter {quoted(one.name)} in {one.in_} twice"
                seen.add(key)
                found[key] = one
        for one in found.values():
            if one.in_ == "header":
                self.headers.setdefault(one.name.lower(), one.name)
            if one.style not in STYLES[one.in_]:
                style = f"the style {one.style}, which is none of {', '.join(STYLES[one.in_])}"
                refused = (
                    refused or f"has the parameter {quoted(one.name)} in {one.in_} with {style}"
                )
        kept = [
            p for p in found.values() if p.in_ != "header" or p.name.lower() not in NO_PARAMETERS
        ]
        return kept, refused

    def parameter(self, node: Any, here: Path) -> Parameter:
        """Compile a parameter."""
        if not isinstance(node, dict) or not isinstance(node.get("name"), str):
            raise Wrong(here, "is no parameter; it must have a name and a place (in)")
        if node.get("in") not in STYLES:
            raise Wrong((here, "in"), f"is none of {', '.join(STYLES)}")
        found: Parameter = self._once(node, self._parameter)
        return found

    def _parameter(self, node: dict[str, Any]) -> Parameter:
        where: Place = node["in"]
        content = node.get("content")
        media_type, schema = None, node.get("schema")
        if isinstance(content, dict) and content:
            media_type, media = next(iter(content.items()))
            schema = media.get("schema") if isinstance(media, dict) else None
        style: Style = node["style"] if node.get("style") in get_args(Style) else STYLES[where][0]
        choices = schemas.choices(self.document, schema)
        explode = node.get("explode")
        return Parameter(
            name=node["name"],
            in_=where,
            type=schemas.type_of(self.document, schema),
            required=where == "path" or node.get("required") is True,
            default=_kept(schemas.said(self.document, schema, "default")),
            enum=None if choices is None else _kept(choices),
            style=style,
            explode=explode if isinstance(explode, bool) else style == "form",
            allow_reserved=node.get("allowReserved") is True,
            media_type=media_type,
        )

    def bodies(self, node: Any, here: Path) -> list[Media]:
        """Compile the forms that a body can have."""
        if node is None:
            return []
        if not isinstance(node, dict) or not isinstance(node.get("content"), dict):
            raise Wrong(here, "is no body; it must have content")
        found: list[Media] = self._once(node, self._bodies)
        return found

    def _bodies(self, node: dict[str, Any]) -> list[Media]:
        found = []
        for name, media in node["content"].items():
            kind, *rest = name.split(";", 1)
            kind = kind.strip().lower()
            if not isinstance(media, dict):
                encoding = {}
            elif kind in FORMS:
                encoding = self.encodings(media, parts=kind == MULTIPART)
            else:
                encoding = {"": BYTES} if self.is_bytes(kind, media.get("schema")) else {}
            found.append(Media(type=";".join((kind, *rest)), encoding=encoding))
        return found

    def is_bytes(self, kind: str, schema: Any) -> bool:
        """Tell whether a whole body is bytes that are sent as they are."""
        if schemas.is_binary(self.document, schema):
            return True
        of_bytes = kind.startswith(("image/", "audio/", "video/")) or kind in OF_BYTES
        return of_bytes and schemas.said(self.document, schema, "format") != "byte"

    def encodings(self, media: dict[str, Any], *, parts: bool) -> dict[str, Encoding]:
        """Say how the properties of a form are written, where that is not the usual."""
        named = media.get("encoding")
        written = named if isinstance(named, dict) else {}
        found = {}
        properties = schemas.properties(self.document, media.get("schema"))
        for name in {**properties, **written}:
            node = written.get(name)
            node = node if isinstance(node, dict) else {}
            style: Style = node["style"] if node.get("style") in STYLES["query"] else "form"
            content_type, explode = node.get("contentType"), node.get("explode")
            one = Encoding(
                content_type=content_type if isinstance(content_type, str) else None,
                style=style,
                explode=explode if isinstance(explode, bool) else style == "form",
                allow_reserved=node.get("allowReserved") is True,
                binary=schemas.is_binary(self.document, properties.get(name)),
                headers=part_headers(self.document, node.get("headers")) if parts else {},
            )
            # For an object, a style that is said differs from none at all (OpenAPI 3.1, 4.8.15).
            if one != Encoding() or node.keys() & {"style", "explode", "allowReserved"}:
                found[name] = one
        return found

    def _once(self, node: dict[str, Any], make: Any) -> Any:
        """Make a node once, however many refer to it, and count what it takes each time."""
        known = self.made.get(id(node))
        if known is None:
            made = make(node)
            known = self.made[id(node)] = (made, len(msgspec.msgpack.encode(made)))
        self.size += known[1]
        if self.size > WRITTEN_OUT * self.limits.max_bytes:
            most = WRITTEN_OUT * self.limits.max_bytes
            raise Wrong(TOP, f"takes more than {most} bytes with its references written out")
        return known[0]


def _text(value: Any) -> str | None:
    return value[:MAX_TEXT] if isinstance(value, str) else None


def _kept(value: Any) -> Any:
    """Return a value with its numbers as wide as messages hold them."""
    if isinstance(value, int) and not LEAST <= value < MOST:
        return float(value)
    if isinstance(value, list):
        return [_kept(each) for each in value]
    return {key: _kept(each) for key, each in value.items()} if isinstance(value, dict) else value
