"""HTTPS and JSON for people and tools, described by OpenAPI."""
