"""How many replicas a service should have: pure rules from docs/autoscaling.md, replayable over any load."""
