"""Run tasks of lm-evaluation-harness with several models and compare their answers."""
