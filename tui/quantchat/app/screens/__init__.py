"""The screens: start, comparison, and what opens over it."""
