"""Agreement of two variants or of two runs of one variant: divergence and cross-perplexity."""
