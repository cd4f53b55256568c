"""Estimate the memory of a comparison before anything is loaded."""
