"""Images out of Dockerfiles: one node's builds, by buildah (decision 0013)."""
