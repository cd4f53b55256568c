"""How far the answers of two variants, or of two runs of one variant, agree."""
