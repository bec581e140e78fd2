"""What services keep, in bytes, and how much that may be."""

from alembic import op

revision = "0013"
down_revision = "0012"

UP = """
-- kept_bytes: as counted last; whoever counts takes the one row of kept_mark.
ALTER TABLE service
    ADD COLUMN max_kept_bytes bigint,
    ADD COLUMN kept_bytes bigint NOT NULL DEFAULT 0;

CREATE TABLE kept_mark (
    one         boolean     NOT NULL,
    counted_at  timestamptz,
    CONSTRAINT kept_mark_pkey PRIMARY KEY (one),
    CONSTRAINT kept_mark_one_check CHECK (one)
);
INSERT INTO kept_mark (one) VALUES (true);
"""

COUNTED_AGAIN = ("kept_mark", "service.kept_bytes")

DOWN = """
DROP TABLE kept_mark;
ALTER TABLE service DROP COLUMN kept_bytes, DROP COLUMN max_kept_bytes;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
