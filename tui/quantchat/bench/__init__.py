"""One comparison: starts workers, orders turns, gathers what they measure. Knows no screen."""
