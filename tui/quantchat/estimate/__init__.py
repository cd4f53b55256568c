"""What a model needs before it is loaded: its shape, weights, KV cache and peak memory."""
