"""Snapshots for people: tables in a terminal."""
