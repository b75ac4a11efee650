"""What is claimed about speed, each figure measured beside its limit in the same run: `make bench`."""
