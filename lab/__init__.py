"""A whole cluster on one machine: every node a set of namespaces and a cgroup."""
