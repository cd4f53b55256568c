"""Score models on a text against a reference: run, tables, command."""
