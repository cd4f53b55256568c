"""Standard-library code that the program and its workers both use, apart from the pipe."""
