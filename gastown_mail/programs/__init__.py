"""A profile per agent program, as data, and the reader of profiles."""
