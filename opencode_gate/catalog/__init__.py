"""What exists and what it costs: providers, models, prices. Facts are data, never branches."""
