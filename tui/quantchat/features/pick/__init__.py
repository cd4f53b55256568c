"""Pick one of many variants: plan, measure and score each, decide, tables, command."""
