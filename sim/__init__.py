"""Controller and agent logic in one process on a virtual clock."""
