"""Decode loops: how the next token is found, and timed."""
