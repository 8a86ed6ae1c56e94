"""Where a request goes: a pure decision over rows of data."""
