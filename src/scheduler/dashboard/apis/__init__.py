"""Pages of registered APIs: the list, the page of one, forms to register and to try."""
