"""Maximum likelihood of exact models: parameters per series, their prior, their errors."""
