"""Storage: folders of models that survive kills and notice damage."""
