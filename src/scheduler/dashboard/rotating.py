"""New tokens and signing secrets by a form, which makes one however often it is sent."""

import base64
from functools import partial

from scheduler import services
from scheduler.admin import acts
from scheduler.admin.model import ShownService
from scheduler.dashboard import once
from scheduler.dashboard.once import Held
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.service import By


async def rotated(
    engine: Engine, of: Held, by: By, ref: str, sent: dict[str, str], *, signs: bool
) -> ShownService:
    """Make the token, or the signing secret, of a form; the same where it is sent again.

    Raises ValidationFailed; Conflict where others are there than when the form was shown.
    """
    secret = once.made(of, sent, f"signing secret of {ref}" if signs else f"token of {ref}")
    if signs:
        check = partial(once.check_seen, of, sent.get("seen", ""))
        return await acts.make_signing(engine.database, by, ref, secret, check)
    newest = services.as_id(sent.get("newest", ""))
    if newest is None:
        raise ValidationFailed.of("newest", "must be the id of the newest token, a UUID")
    token = token_of(secret)
    return await acts.rotate(engine.database, by, ref, signing=False, newest=newest, token=token)


def token_of(secret: bytes) -> str:
    """Return a token as it is sent, of 32 bytes that nobody guesses."""
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")
