"""Many requests at once: servers under load, local models with static batches."""
