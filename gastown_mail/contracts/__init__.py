"""What other programs see: requests, state, addresses, settings, keys and errors, as plain data."""
