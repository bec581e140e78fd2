"""Calls of registered APIs, as they are stored."""

from scheduler.actions import Operation


def test_an_operation_is_named_by_its_method_and_path():
    assert Operation("pets", "/pets/{id}", "DELETE").name == "DELETE /pets/{id}"
