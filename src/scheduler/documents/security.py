"""Security: which credentials the operations of a document ask for."""

from typing import Any

from scheduler.documents.client import Scheme
from scheduler.documents.notation import TOP, Path, Wrong, quoted
from scheduler.documents.references import resolved

Sets = list[dict[str, Scheme]]


class Requirements:
    """Of one document that was settled."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        components = document.get("components")
        named = components.get("securitySchemes") if isinstance(components, dict) else None
        self._schemes = {
            name: _scheme(resolved(document, node))
            for name, node in (named.items() if isinstance(named, dict) else ())
        }
        self._usual = self._sets(document.get("security"), (TOP, "security"))

    def of(self, operation: dict[str, Any], here: Path) -> Sets:
        """Return the sets of schemes of which an operation asks one. Raises Wrong."""
        if "security" in operation:
            return self._sets(operation["security"], here)
        return self._usual

    def headers(self) -> list[str]:
        """Return the headers that schemes are sent in."""
        return [
            one.name
            for one in self._schemes.values()
            if one.in_ == "header" and one.kind != "other"
        ]

    def _sets(self, node: Any, here: Path) -> Sets:
        found: Sets = []
        for index, one in enumerate(node or ()):
            names = one if isinstance(one, dict) else {}
            for name in names:
                if name not in self._schemes:
                    what = f"{quoted(name)} is no security scheme of components.securitySchemes"
                    raise Wrong((here, index), what)
            found.append({name: self._schemes[name] for name in names})
        return found


def _scheme(node: Any) -> Scheme:
    if not isinstance(node, dict):
        return Scheme(kind="other")
    name, where = node.get("name"), node.get("in")
    if node.get("type") == "apiKey" and isinstance(name, str):
        if where in ("query", "header", "cookie"):
            return Scheme(kind="apiKey", in_=where, name=name)
    elif node.get("type") == "http":
        word = str(node.get("scheme")).lower()
        if word == "basic":
            return Scheme(kind="basic")
        if word == "bearer":
            return Scheme(kind="bearer")
    elif node.get("type") in ("oauth2", "openIdConnect"):
        return Scheme(kind="bearer")  # what they end in (RFC 6750)
    return Scheme(kind="other")
