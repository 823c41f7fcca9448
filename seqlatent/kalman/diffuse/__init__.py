"""First states of infinite variance."""
