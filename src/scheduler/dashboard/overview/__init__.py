"""The first page: what is going on, and what needs somebody."""
