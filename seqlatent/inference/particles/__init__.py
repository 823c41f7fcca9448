"""Particle filters and backward sampling."""
