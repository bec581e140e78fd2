"""References: those of a document lead to places in it, and nowhere else.

Nothing is fetched or read because a document says so: what would make a library do that is refused
here, or taken out, before any library sees the document.
"""

from typing import Any
from urllib.parse import unquote

from scheduler.documents.notation import TOP, Path, Wrong, quoted

LOCAL = 'write it into this document, and refer to it like "#/components/schemas/Pet"'
SCHEMAS = "#/components/schemas/"
MAPS = {
    "$defs", "callbacks", "content", "definitions", "dependentSchemas", "encoding", "examples",
    "headers", "links", "parameters", "pathItems", "paths", "patternProperties", "properties",
    "requestBodies", "responses", "schemas", "securitySchemes", "variables", "webhooks",
}  # fmt: skip
"""Whose keys are names that somebody chose."""
DATA = {"default", "enum", "const", "example", "examples", "value"}
"""Whose values are data: what looks like a reference in them is none."""
BASES = {"$id", "$schema", "jsonSchemaDialect"}
"""They would have references be resolved against another address."""
DYNAMIC = {"$dynamicRef", "$recursiveRef"}


def settled(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document whose references all lead somewhere in it. Raises Wrong."""
    found: dict[str, Any] = _Walk(document).object(document, TOP)
    return found


def resolved(document: dict[str, Any], node: Any) -> Any:
    """Return what a node of a settled document stands for."""
    while isinstance(node, dict) and isinstance(node.get("$ref"), str):
        node = target(document, node["$ref"])
    return node


def target(document: dict[str, Any], reference: str) -> Any:
    """Return what a local reference leads to (RFC 6901, 6). Raises LookupError."""
    found: Any = document
    for part in unquote(reference).removeprefix("#/").split("/"):
        step = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and step.isascii() and step.isdigit():
            found = found[int(step)]
        elif isinstance(found, dict):
            found = found[step]
        else:
            raise LookupError(step)
    return found


class _Walk:
    """One way through a document; a method copies what it has looked at."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[str] = set()
        """References that lead to something."""

    def object(self, node: dict[str, Any], path: Path) -> dict[str, Any]:
        """Copy an object whose keys are OpenAPI's."""
        copy: dict[str, Any] = {}
        for key, value in node.items():
            here = (path, key)
            if key == "$ref" and isinstance(value, str):
                self.reference(value, here)
            elif key in DYNAMIC and not str(value).startswith("#"):
                raise Wrong(here, f"{quoted(value)} leads out of this document; {LOCAL}")
            elif key in BASES and isinstance(value, str):
                continue
            copy[key] = self.value(key, value, here)
        return copy

    def value(self, key: str, value: Any, path: Path) -> Any:
        """Copy the value of one of OpenAPI's keys."""
        if isinstance(value, dict):
            if key in MAPS:
                return self.map(value, path)
            if key == "mapping":
                return {name: self.mapped(each, (path, name)) for name, each in value.items()}
            if key not in DATA and not key.startswith("x-"):
                return self.object(value, path)
        if isinstance(value, list) and key not in DATA and not key.startswith("x-"):
            return self.list(value, path)
        self.data(value, path)
        return value

    def map(self, node: dict[str, Any], path: Path) -> dict[str, Any]:
        """Copy an object whose keys are names."""
        copy: dict[str, Any] = {}
        for name, value in node.items():
            here = (path, name)
            if name == "$ref" and isinstance(value, str):
                self.reference(value, here)
            copy[name] = self.part(value, here)
        return copy

    def list(self, node: list[Any], path: Path) -> list[Any]:
        """Copy a list of objects."""
        copy: list[Any] = []
        for index, value in enumerate(node):
            copy.append(self.part(value, (path, index)))
        return copy

    def part(self, value: Any, path: Path) -> Any:
        """Copy what stands in a map or a list."""
        if isinstance(value, dict):
            return self.object(value, path)
        return self.list(value, path) if isinstance(value, list) else value

    def data(self, value: Any, path: Path) -> None:
        """Look through data: libraries take what looks like a reference there for one."""
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#/"):
                raise Wrong((path, "$ref"), f"{quoted(reference)} leads out of this document")
            for key, each in value.items():
                self.data(each, (path, key))
        elif isinstance(value, list):
            for index, each in enumerate(value):
                self.data(each, (path, index))

    def reference(self, reference: str, path: Path) -> None:
        """Follow a reference to its end."""
        chain: set[str] = set()
        while reference not in self.seen:
            if not reference.startswith("#/"):
                raise Wrong(path, f"{quoted(reference)} leads out of this document; {LOCAL}")
            if reference in chain:
                raise Wrong(path, f"{quoted(reference)} leads back to itself")
            chain.add(reference)
            try:
                found = target(self.document, reference)
            except LookupError:
                raise Wrong(path, f"{quoted(reference)} names nothing in this document") from None
            following = found.get("$ref") if isinstance(found, dict) else None
            if not isinstance(following, str):
                break
            reference = following
        self.seen |= chain

    def mapped(self, name: Any, path: Path) -> Any:
        """Return what a discriminator maps to, as a reference (OpenAPI 3.1, 4.8.25)."""
        if not isinstance(name, str):
            return name
        schemas = self.document.get("components")
        schemas = schemas.get("schemas") if isinstance(schemas, dict) else None
        if isinstance(schemas, dict) and name in schemas:
            escaped = name.replace("~", "~0").replace("/", "~1").replace("%", "%25")
            return SCHEMAS + escaped
        self.reference(name, path)
        return name
