"""What agents measure, kept in memory for fifteen minutes: of services, replicas and nodes, a row a second."""
