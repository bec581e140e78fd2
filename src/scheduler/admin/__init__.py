"""Services as the operator sees them: create, change, rotate, revoke, delete."""
