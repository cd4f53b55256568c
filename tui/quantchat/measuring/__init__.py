"""What several features do with variants: measure in rounds, score, ask tasks, plan memory."""
