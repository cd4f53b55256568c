"""Scoring: a loaded model's surprisal for the tokens of a text, and its KLD from another model."""
