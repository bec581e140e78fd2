"""Who changed what, and when."""

from alembic import op

revision = "0009"
down_revision = "0008"

UP = """
-- id: a UUIDv7 of `at`, and the version within a millisecond, so that ids stand in order. ref: what
-- was changed, by the id it has for its service; key: of a task, which its history has too. way:
-- by which door the change came; token_id: with whose token, null for none. changes: fields as
-- [name, before, after], secrets masked.
CREATE TABLE audit (
    id          uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    service_id  uuid        NOT NULL,
    kind        text        NOT NULL,
    ref         text        NOT NULL,
    key         uuid,
    version     integer,
    at          timestamptz NOT NULL,
    verb        text        NOT NULL,
    way         text        NOT NULL,
    token_id    uuid,
    changes     jsonb       NOT NULL,
    reason      text,
    CONSTRAINT audit_pkey PRIMARY KEY (id, bucket)
);
CREATE INDEX audit_of ON audit (service_id, kind, ref, id);
"""

DOWN = """
DROP TABLE audit;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
