"""The changes of a whole service, and those of what is an installation's."""

from alembic import op

revision = "0012"
down_revision = "0011"

UP = """
-- act: the change of many that this one is a part of. Lists of a service's changes have that one,
-- so that what is made by the thousand costs them no entry.
ALTER TABLE audit ADD COLUMN act uuid;
CREATE INDEX audit_of_service ON audit (service_id, kind, id) WHERE act IS NULL;
-- By hand: few, however much a program changes by the API.
CREATE INDEX audit_by_hand ON audit (service_id, id) WHERE act IS NULL AND way <> 'api';
CREATE INDEX audit_of_admin ON audit (id) WHERE kind IN ('service', 'token');
"""

DOWN = """
DROP INDEX audit_of_admin;
DROP INDEX audit_by_hand;
DROP INDEX audit_of_service;
ALTER TABLE audit DROP COLUMN act;
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
