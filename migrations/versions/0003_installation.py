"""The installation: which one this database is of, its secrets key, its time zones, its pause."""

from alembic import op

revision = "0003"
down_revision = "0002"

UP = """
-- One row. place: the Postgres and the database in it that the installation lives in; another one
-- holds a copy. secret_fingerprint: of the key that seals secrets. tzdata: the version that zoned
-- triggers were last worked out with, since tzdata_at; tzdata_next: the one that they are being
-- worked out with, as far as the task tzdata_after. runs_with: the oldest revision whose program
-- may still run on this schema.
CREATE TABLE installation (
    one                 boolean     NOT NULL DEFAULT true,
    id                  uuid        NOT NULL DEFAULT gen_random_uuid(),
    place               text,
    secret_fingerprint  text,
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


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
