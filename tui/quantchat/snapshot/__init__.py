"""Saved comparisons (snapshots): their schema, and the folder in which they are stored."""
