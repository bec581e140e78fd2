"""Sessions of who holds the admin token."""

from alembic import op

revision = "0011"
down_revision = "0010"

UP = """
"""

DOWN = """
"""


def upgrade() -> None:
    _each(UP)


def downgrade() -> None:
    _each(DOWN)


def _each(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
