"""Qwen3-Reranker: its prompt, its forward pass, its weights."""
