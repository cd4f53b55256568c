"""Features, each in a folder of its own. None imports another."""
