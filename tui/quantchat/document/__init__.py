"""What reports and tables are made of, whatever they show: figures, styles, tables, plots."""
