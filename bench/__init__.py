"""Figures for people: side by side in one run, never a test. `make bench` runs them all."""
