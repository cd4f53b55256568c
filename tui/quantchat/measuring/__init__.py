"""Work that several features share: measure in rounds, score, run tasks, plan memory."""
