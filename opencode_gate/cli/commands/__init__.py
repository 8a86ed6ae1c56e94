"""One module a verb; each exposes `app` (a group of verbs) or `command` (one function)."""
