"""The vocabulary of the project, on the standard library alone."""
