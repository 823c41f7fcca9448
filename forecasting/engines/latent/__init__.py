"""The engine of latent models: an ensemble, its training, and what it says of the past."""
