"""Profiles: TOML files that say what to compare, read into validated models."""
