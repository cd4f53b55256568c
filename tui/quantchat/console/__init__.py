"""Code that commands share: consoles, progress, options, showing and saving a result."""
