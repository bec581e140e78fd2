"""Pages of the installation and of a service's settings."""
