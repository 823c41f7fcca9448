"""Amortised inference: encoders, families of posterior chains, and what joins them."""
