"""Carries out requests and heartbeats."""
