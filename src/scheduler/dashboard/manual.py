"""The API for people: Swagger UI at `/docs` and the addresses older clients know."""

from typing import Any

from litestar import MediaType, Response, Router, get
from litestar.datastructures import ResponseHeader
from litestar.openapi.plugins import OpenAPIRenderPlugin

from scheduler.dashboard import page
from scheduler.errors import NotFound

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
"""Swagger UI draws with images that its style sheet holds, and calls what is tried out."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Manual(OpenAPIRenderPlugin):
    """The page, where the framework serves the document."""

    def render(self, *_: Any, **__: Any) -> bytes:
        """Return the page; the browser fetches the document by itself."""
        return page.text("manual.html").encode()


@get(
    ["/swagger-ui", "/swagger/index.html", "/v1/apidoc/swagger", "/v1/apidoc/swagger/{rest:path}"],
    include_in_schema=False,
)
async def show_manual() -> Response[str]:
    """Return the same page as `/docs`; what follows an old address does not matter."""
    return Response(page.text("manual.html"), headers=HEADERS, media_type=MediaType.HTML)


async def _none_there(answer: Response[Any]) -> Response[Any]:
    """Refuse an unknown address as any other; the framework has a page of its own for it."""
    if answer.status_code == 404:
        raise NotFound("there is no such address; /docs lists them")
    return answer


def router() -> Router:
    """Return the router on which the framework puts the document and its page."""
    return Router(
        "/docs",
        route_handlers=[],
        include_in_schema=False,
        after_request=_none_there,
        response_headers=[ResponseHeader(name=k, value=v) for k, v in HEADERS.items()],
    )
