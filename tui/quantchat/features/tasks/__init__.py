"""Let models do tasks of lm-evaluation-harness and compare the answers that changed."""
