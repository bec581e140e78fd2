"""HTTP as the server speaks it: what is no HTTP at all is refused in the one error shape too."""

import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from scheduler import logs
from scheduler.errors import InvalidRequest

log = structlog.get_logger()
TAKEN_S = 2
"""At a stop: as long as a client has to take the rest of an answer that is all written."""


class Protocol(HttpToolsProtocol):
    """Uvicorn's, but for the answer that never reaches the application, and streams that end."""

    _stopping = False

    def shutdown(self) -> None:
        """End the connection, after the answer that is under way; who reads no more is cut off."""
        super().shutdown()
        self._stopping = True
        self._cut_later()

    def on_response_complete(self) -> None:
        """Go on to the next request, or end."""
        super().on_response_complete()
        self._cut_later()

    def _cut_later(self) -> None:
        """Cut a connection that closes as soon as all is taken, for that may be never."""
        if self._stopping and self.transport.is_closing():
            self.loop.call_later(TAKEN_S, self.transport.abort)

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
