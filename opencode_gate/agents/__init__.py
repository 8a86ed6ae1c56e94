"""Coding agents: how each is found, configured and started, and what it needs from an answer."""
