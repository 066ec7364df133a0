"""Who makes machines: the port, and its implementations."""
