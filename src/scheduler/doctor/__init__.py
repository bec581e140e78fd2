"""Doctor: looks at an installation from outside, and says of each thing whether it is well."""
