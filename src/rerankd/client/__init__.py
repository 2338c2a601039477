"""Asks rerank servers over HTTP: rerankd, or any other that speaks one of the dialects. Knows no engine."""
