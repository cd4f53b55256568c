"""Decode loops: they compute, choose and time the next token."""
