"""Look at the machine, the folders and the libraries, and say what will not work."""
