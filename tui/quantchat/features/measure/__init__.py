"""Measure a pair in rounds: plan, run, warnings, record, tables, commands."""
