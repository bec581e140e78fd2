"""Sessions of browsers that are signed in."""

from alembic import op

revision = "0005"
down_revision = "0004"

UP = """
-- hash: SHA-256 of what the cookie holds. A session goes with the token that opened it.
CREATE TABLE session (
    hash        bytea       NOT NULL,
    service_id  uuid        NOT NULL,
    token_id    uuid        NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT session_pkey PRIMARY KEY (hash),
    CONSTRAINT session_token_fkey FOREIGN KEY (token_id) REFERENCES token (id) ON DELETE CASCADE
);
CREATE INDEX session_token ON session (token_id, created_at);
CREATE INDEX session_expires ON session (expires_at);
"""

DOWN = """
DROP TABLE session;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
