"""Ground floor: frozen records, Compose parsing, the state table, errors and ports. Pure, no I/O."""
