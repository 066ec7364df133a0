"""Images of a node: references, the registry client, the store of unpacked layers, container roots."""
