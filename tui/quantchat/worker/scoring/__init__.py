"""Scoring: a loaded model's surprisal for a text, and its KL divergence from another model."""
