"""Tests with the real programs, each against a mock model server in a network namespace with only `lo`."""
