"""Filtered and smoothed moments, by several algorithms."""
