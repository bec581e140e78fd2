"""The words of the OpenAPI document: what fields, parameters and routes mean, with examples."""
