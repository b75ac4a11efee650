"""What is done with a request, and at a heartbeat."""
