"""The commands `run` and `rerun`, and the tables of a measurement."""
