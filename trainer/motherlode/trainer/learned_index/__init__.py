"""The training of the learned index: clusters of labels, then their edges (ELIAS)."""
