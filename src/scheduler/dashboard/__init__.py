"""What a browser sees: sign-in, tasks and their runs, and the page that shows the API."""
