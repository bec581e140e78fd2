"""The installation: which one this database is of, its secrets key, its time zones, its pause."""

from alembic import context, op
from alembic.util import CommandError
from sqlalchemy import text

revision = "0003"
down_revision = "0002"

UP = """
-- One row. place: the Postgres and the database in it that the installation lives in; another one
-- holds a copy. secret_fingerprint: of the key that seals secrets. sealed_at: since when nothing
-- secret is stored open. tzdata: the version that zoned triggers were last worked out with, since
-- tzdata_at; tzdata_next: the one that they are being worked out with, as far as the task
-- tzdata_after. runs_with: the oldest revision whose program may still run on this schema; each
-- later migration says it anew, where the version before would break.
CREATE TABLE installation (
    one                 boolean     NOT NULL DEFAULT true,
    id                  uuid        NOT NULL DEFAULT gen_random_uuid(),
    place               text,
    secret_fingerprint  text,
    sealed_at           timestamptz,
    tzdata              text,
    tzdata_at           timestamptz,
    tzdata_next         text,
    tzdata_after        uuid,
    runs_with           text        NOT NULL,
    paused_at           timestamptz,
    paused_reason       text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT installation_pkey PRIMARY KEY (one),
    CONSTRAINT installation_one_check CHECK (one)
);
INSERT INTO installation (runs_with) VALUES ('0002');
"""

DOWN = """
DROP TABLE installation;
"""
SEALED = """
SELECT EXISTS (SELECT FROM service
    WHERE substring(signing_secret FOR 1) = '\\x01' AND length(signing_secret) > 64)
    OR EXISTS (SELECT FROM task
        WHERE position('\\u0001sealed ' IN concat(action -> 'header', action -> 'env')) > 0)
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    emptied = context.config.attributes.get("to") == "base"
    if not emptied and op.get_bind().execute(text(SEALED)).scalar_one():
        raise CommandError(
            "secrets are sealed, which the version before cannot read; stop every replica, run "
            "`scheduler secrets unseal`, and then this again"
        )
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
