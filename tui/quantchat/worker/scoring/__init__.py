"""Scoring: how well a loaded model foretells a text, and how far it is from another's forecast."""
