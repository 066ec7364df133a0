"""What a Prometheus says to a query, for policies that name one."""
