"""Code that the main process and the workers share, using only the standard library and `wire`."""
