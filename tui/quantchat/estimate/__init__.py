"""Estimate a model's shape, weights, KV cache and peak memory before it is loaded."""
