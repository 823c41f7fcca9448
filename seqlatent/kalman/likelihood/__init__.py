"""Log likelihoods, faster than a filter that goes step by step."""
