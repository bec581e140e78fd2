"""How a field is described, and the values that examples share."""

from typing import Any

Json = dict[str, Any]


def said(description: str, *examples: Any, **bounds: Any) -> Json:
    """Return what is added to a field's schema; bounds by their names in JSON Schema."""
    return {"description": description, "examples": list(examples), **bounds}


INSTANT = "2027-01-31T08:00:00.000Z"
LATER = "2027-01-31T08:00:00.412Z"
SERVICE = "4f5b8f0e-7f0a-4a52-9d0c-0b7f7d1d3c11"
RUN = "019b7f3c-1a00-8d3e-9ea9-17673af662f2"
TOKEN_ID = "b2a5c7f1-52a5-4a54-9f0e-6f1f6d6f2a10"  # noqa: S105
YEAR_S = 31_536_000
DAY_S = 86_400
STATUSES = ["active", "paused", "disabled"]
STATES = ["created", "pending", "running", "completed", "failed"]
IGNORED = "Answered alone; taken and ignored, so that an answer may be sent back whole."


def ignored(schema: str, *names: str) -> dict[str, Json]:
    """Say of fields that they are answered, and ignored where they are sent."""
    return {f"{schema}.{name}": said(IGNORED, None) for name in names}
