"""Inspect the machine, the folders and the libraries, and report problems with their fixes."""
