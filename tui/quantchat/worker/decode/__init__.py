"""Decode loops, which compute, choose and time the next token."""
