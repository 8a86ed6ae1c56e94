"""Bytes in; facts, events and usage out.

No I/O, no clock, no framework; the formats do not know each other.
"""
