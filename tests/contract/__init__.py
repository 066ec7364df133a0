"""One promise, tested against every implementation of a port."""
