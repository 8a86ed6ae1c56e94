"""Launches Opencode through a local AI gateway that counts, prices and records every model call.

The idea: one command, one gateway process per session, one true row per exchange.
The invariant: this module stays empty of imports, because every start of `ogate` pays for it.
"""

__version__ = "0.1.0"
