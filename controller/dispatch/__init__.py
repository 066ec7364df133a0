"""The leader's side of the wire to the agents: sessions, what each node must run, what each node says."""
