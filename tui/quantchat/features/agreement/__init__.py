"""How far two answers or two runs agree: divergence, cross-perplexity, agreement with itself."""
