"""Scoring: a loaded model's surprisal over a text, and its KL divergence from another model."""
