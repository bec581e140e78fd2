"""HTTP as the server speaks it: what is no HTTP at all is refused in the one error shape too."""

import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from scheduler import logs
from scheduler.errors import InvalidRequest

log = structlog.get_logger()


class Protocol(HttpToolsProtocol):
    """Uvicorn's, but for the answer that never reaches the application, and streams that end."""

    def on_message_begin(self) -> None:
        """Begin a request; whoever answers it for hours can cut a reader that has gone."""
        super().on_message_begin()
        self.scope["extensions"] = {"scheduler.abort": {"call": self.transport.abort}}

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser cannot read, and close the connection."""
        trace = logs.trace_id()
        log.debug("request refused", error=msg, **{"X-TRACE-ID": trace})
        error = {"code": InvalidRequest.code, "message": "the request is not valid HTTP"}
        body = msgspec.json.encode({"error": error})
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            f"x-trace-id: {trace}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
