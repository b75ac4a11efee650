"""The decisions, and the processes that carry them out."""
