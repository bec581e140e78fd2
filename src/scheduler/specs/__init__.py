"""Specs: OpenAPI documents, compiled into operations that can be called by name."""
