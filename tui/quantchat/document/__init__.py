"""Building blocks of reports and terminal output: figures, styles, tables, plots."""
