"""How many replicas a load needs: a simulation with the engine's own batching. Knows no HTTP, no model and no clock."""
