"""Shells around the pure core: they perform effects, keep the journal, speak with the controller. May do I/O."""
