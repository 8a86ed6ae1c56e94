"""One run of an agent: planned, spawned, supervised, reconciled, summarised."""
