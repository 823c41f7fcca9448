"""Training by gradients of an objective, in batches."""
