"""Who is in a town, and what is recorded of it."""
