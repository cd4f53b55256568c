"""Pure computations: latencies, intervals, tests, distances between models."""
