"""What to compare: a TOML file in, validated models out."""
