"""Reranks a run of any size as one job that survives every interruption. Knows no model and no HTTP."""
