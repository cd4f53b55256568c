"""Standard-library code shared by the program and its workers, except for the messages (`wire`)."""
