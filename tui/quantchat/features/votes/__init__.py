"""Blind votes on answers: the session, its record and its tables."""
