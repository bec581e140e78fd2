"""Calendars: what tasks keep clear of; and a list of what is no HTTP call."""

from alembic import op

revision = "0006"
down_revision = "0005"

UP = """
-- definition: what it excludes, with the events of the file among it. ical: the file as it was
-- sent. A version before this one passes over what tasks name in their bounds.
CREATE TABLE calendar (
    id          uuid        NOT NULL,
    service_id  uuid        NOT NULL,
    name        text        NOT NULL,
    version     integer     NOT NULL,
    description text,
    definition  jsonb       NOT NULL,
    ical        text,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT calendar_pkey PRIMARY KEY (id),
    CONSTRAINT calendar_name_key UNIQUE (service_id, name),
    CONSTRAINT calendar_version_check CHECK (version > 0),
    CONSTRAINT calendar_times_check CHECK (
        created_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z'
        AND updated_at BETWEEN '0001-01-02Z' AND '9999-12-31T23:59:59.999Z')
);

-- Which tasks name a calendar: each name with the end of its service's id, as for tags.
CREATE INDEX task_calendars ON task USING gin (string_to_array(
    ('s' || substr(service_id::text, 29)) || replace(
        btrim((bounds -> 'calendars')::text, '[]'), ', ',
        ', ' || ('s' || substr(service_id::text, 29))), ', '))
    WHERE bounds ? 'calendars';

CREATE INDEX task_action ON task (service_id, (action ->> 'kind'), created_at, key)
    WHERE action ->> 'kind' <> 'http';
"""

DOWN = """
DROP INDEX task_action;
DROP INDEX task_calendars;
DROP TABLE calendar;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
