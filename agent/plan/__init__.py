"""Pure part of the agent: container life, OCI configs and network plans as data."""
