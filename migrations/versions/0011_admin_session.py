"""Sessions of who holds the admin token."""

from alembic import op

revision = "0011"
down_revision = "0010"

UP = """
-- hash: SHA-256 of what the cookie holds. proof: HMAC of the admin token under the cookie, so that
-- the session ends with that token, and the table says nothing of it.
CREATE TABLE admin_session (
    hash        bytea       NOT NULL,
    proof       bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    used_at     timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT admin_session_pkey PRIMARY KEY (hash)
);
CREATE INDEX admin_session_expires ON admin_session (expires_at);
"""

DOWN = """
DROP TABLE admin_session;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
