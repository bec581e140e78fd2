"""OpenAPI documents: read, validated, compiled; calls built from them, and checked.

No tables, no web framework. What imports the OpenAPI libraries runs in child processes alone.
"""
