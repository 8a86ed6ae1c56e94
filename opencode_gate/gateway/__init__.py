"""The server, the application and its pipeline: one request in, one row behind."""
