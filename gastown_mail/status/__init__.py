"""The health of a town, as `status`, `explain` and `doctor` report it."""
