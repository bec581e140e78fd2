"""What was done to tasks from the dashboard, for as long as it can be undone."""

from alembic import op

revision = "0010"
down_revision = "0009"

UP = """
-- What was asked of tasks from the dashboard, a row for each task of an act: what became of it, and
-- what it takes to undo it. before, of a delete: the task's row as it was, secrets sealed as there,
-- and how far it was planned; of a pause: the status that it had. A row lives for an hour.
CREATE TABLE undo (
    act        uuid        NOT NULL,
    key        uuid        NOT NULL,
    bucket     smallint    NOT NULL,
    service_id uuid        NOT NULL,
    kind       text        NOT NULL,
    id         text        NOT NULL,
    name       text        NOT NULL,
    state      text        NOT NULL,
    said       text,
    version    integer,
    before     jsonb,
    at         timestamptz NOT NULL,
    CONSTRAINT undo_pkey PRIMARY KEY (act, key, bucket),
    CONSTRAINT undo_kind_check CHECK (kind IN ('pause', 'resume', 'run', 'delete')),
    CONSTRAINT undo_state_check CHECK (state IN ('asked', 'done', 'refused', 'undone'))
);

CREATE INDEX undo_service ON undo (service_id, at, key);
CREATE INDEX undo_at ON undo (at);
"""

DOWN = """
DROP TABLE undo;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
