"""Pure placement: cluster view, filters that explain themselves, scores, batches."""
