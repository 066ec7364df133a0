"""A whole lab with real containers."""
