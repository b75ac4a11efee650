"""The agents of a town, and what is recorded about them."""
