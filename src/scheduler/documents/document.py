"""Documents: what is an OpenAPI 3 document at all."""

import re
from typing import Any

from scheduler.documents.messages import Limits
from scheduler.documents.notation import TOP, Wrong, quoted, values

VERSION = re.compile(r"3\.[01]\.[0-9]+(-.+)?")
RIGHT = 'write the version of OpenAPI that it keeps to, like "3.0.3" or "3.1.0"'


def read(source: bytes, limits: Limits) -> dict[str, Any]:
    """Return an OpenAPI 3.0 or 3.1 document as JSON's own kinds of values. Raises Wrong."""
    found = values(source, limits)
    if not isinstance(found, dict):
        what = "empty" if found is None else "no object"
        raise Wrong(
            TOP, f"is {what}; an OpenAPI document is an object with openapi, info and paths"
        )
    if "openapi" not in found and "swagger" in found:
        version = quoted(found["swagger"])
        raise Wrong(
            (TOP, "swagger"),
            f"this is Swagger {version}, which is not supported; convert it to OpenAPI 3.0 or 3.1",
        )
    if "openapi" not in found:
        raise Wrong((TOP, "openapi"), f"is missing; {RIGHT}")
    version = found["openapi"]
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise Wrong((TOP, "openapi"), f"{quoted(version)} is not supported; {RIGHT}")
    return found
