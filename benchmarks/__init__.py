"""Measures each claim about speed next to its limit, in the same run: `make bench`."""
