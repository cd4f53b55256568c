"""What commands share: consoles, progress, options, how a run is shown and saved."""
