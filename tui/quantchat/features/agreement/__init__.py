"""How far answers agree, of two variants or of two runs of one: divergence and cross-perplexity."""
