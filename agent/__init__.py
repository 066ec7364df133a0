"""The daemon of a node: runs what its assignment document says and reports what runs."""
