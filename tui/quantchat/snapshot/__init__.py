"""What is saved of a comparison: its schema, and the folder it is kept in."""
