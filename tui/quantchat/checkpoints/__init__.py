"""Checkpoints made here: fetched, dequantized, quantized, and kept in the user's cache."""
