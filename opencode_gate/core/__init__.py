"""The vocabulary of the project: the standard library, and msgspec for what is made per request."""
