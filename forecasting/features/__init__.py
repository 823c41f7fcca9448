"""Features: what a model reads of a panel, in which units, over which rows."""
