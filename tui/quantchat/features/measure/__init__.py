"""Measure a pair in rounds: plan, run, doubts, record, tables, commands."""
