"""Sending requests, the inbox, the records of requests, and the events stream."""
