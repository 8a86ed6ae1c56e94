"""Opencode 1.x (https://opencode.ai)."""
