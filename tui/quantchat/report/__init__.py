"""Snapshots for people: tables in a terminal, and reports as a page, as Markdown, as CSV."""
