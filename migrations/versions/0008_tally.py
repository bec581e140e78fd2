"""What ended, counted by the minute."""

from alembic import op

revision = "0008"
down_revision = "0007"

UP = """
-- What ended of a service in the minute, or the hour, that begins at `at`: runs by state, and what
-- was skipped by its reason too; a row of many instants counts for all of them. lags: how many
-- started how late, by the bounds in tally.py. Whatever is in here can be counted again of history.
CREATE TABLE tally (
    service_id  uuid        NOT NULL,
    bucket      smallint    NOT NULL,
    at          timestamptz NOT NULL,
    seconds     integer     NOT NULL,
    succeeded   bigint      NOT NULL,
    failed      bigint      NOT NULL,
    expired     bigint      NOT NULL,
    cancelled   bigint      NOT NULL,
    skipped     bigint      NOT NULL,
    overlap     bigint      NOT NULL,
    misfire     bigint      NOT NULL,
    paused      bigint      NOT NULL,
    calendar    bigint      NOT NULL,
    lags        bigint[]    NOT NULL,
    CONSTRAINT tally_pkey PRIMARY KEY (service_id, at, seconds, bucket),
    CONSTRAINT tally_seconds_check CHECK (seconds IN (60, 3600)),
    CONSTRAINT tally_lags_check CHECK (cardinality(lags) = 36),
    CONSTRAINT tally_times_check CHECK (at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);
CREATE INDEX tally_at ON tally (seconds, at);

-- How far history is counted: all that ended before `until`; null where nothing is. One row.
CREATE TABLE tally_mark (
    one         boolean     NOT NULL,
    until       timestamptz,
    counted_at  timestamptz,
    CONSTRAINT tally_mark_pkey PRIMARY KEY (one),
    CONSTRAINT tally_mark_one_check CHECK (one)
);
INSERT INTO tally_mark (one) VALUES (true);
"""

COUNTED_AGAIN = ("tally", "tally_mark")

DOWN = """
DROP TABLE tally_mark;
DROP TABLE tally;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
