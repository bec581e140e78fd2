"""Files that pages need: style, script, icon, Swagger UI. All come from here, no other host.

An address holds a stamp of the content, so that a browser may keep a file for ever, and asks for
another address once the program is another.
"""

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from scheduler.errors import NotFound

HERE = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
"""The framework adds the charset to text."""
OURS = ("icon.svg", "manual.css", "manual.js")
JOINED = {"style.css": "css", "script.js": "js"}
"""Files that are put together of those in a folder, in the order of their names."""
SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
"""What is served of the package that ships Swagger UI; it holds 25 MB of other things."""
FOR_EVER = "public, max-age=31536000, immutable"


class File(msgspec.Struct, frozen=True):
    """A file as it is answered."""

    name: str
    content: bytes
    media_type: str
    stamp: str
    """Of its content."""

    @property
    def address(self) -> str:
        """Where it is served."""
        return f"/static/{self.stamp}/{self.name}"


def swagger_folder() -> Path:
    """Return where Swagger UI lies; found, not imported: the package wants web frameworks."""
    spec = importlib.util.find_spec("swagger_ui")
    return Path(spec.origin or "").parent / "static" if spec else Path()


@lru_cache
def file(name: str) -> File:
    """Return one of our files, read once. Raises NotFound for any other name."""
    if name in JOINED:
        parts = sorted((HERE / JOINED[name]).glob(f"*{Path(name).suffix}"))
    elif name in OURS:
        parts = [HERE / name]
    elif name in SWAGGER:
        parts = [swagger_folder() / name]
    else:
        raise NotFound(f"there is no file {name[:100]}")
    content = b"".join(part.read_bytes() for part in parts)
    stamp = hashlib.sha256(content).hexdigest()[:16]
    return File(name, content, TYPES[Path(name).suffix], stamp)


def address(name: str) -> str:
    """Return the address of one of our files, for a page."""
    return file(name).address


@get("/static/{stamp:str}/{name:str}", include_in_schema=False)
async def send_file(
    stamp: FromPath[str], name: FromPath[str], request: Request[Any, Any, Any]
) -> Response[bytes]:
    """Return a file; under a stamp from before it is the present one, and is not kept."""
    found = file(name)
    tag = f'"{found.stamp}"'
    kept = FOR_EVER if stamp == found.stamp else "no-cache"
    headers = {"ETag": tag, "Cache-Control": kept}
    if tag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers, media_type=found.media_type)
    return Response(found.content, headers=headers, media_type=found.media_type)
