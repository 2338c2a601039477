"""How good runs are, which is better, and how deep to rerank. Knows runs and judgements, no model."""
