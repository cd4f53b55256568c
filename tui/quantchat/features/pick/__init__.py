"""Pick one of many variants: plan, measure and score each, decide, show the result as tables."""
