"""Three hosts on one machine, as namespaces for network, mounts, host name and processes: `make hosts`."""
