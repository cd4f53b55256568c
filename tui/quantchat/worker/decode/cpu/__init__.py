"""Decoding on a CPU: kernels called directly, weights fused, a Llama step written out."""
