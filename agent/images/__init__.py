"""Shell around registries and layers: pulls, verifies, unpacks and shares images."""
