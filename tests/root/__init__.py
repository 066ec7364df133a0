"""Real namespaces, mounts, cgroups and containers: these need root."""
