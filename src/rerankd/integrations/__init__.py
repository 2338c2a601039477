"""Rerankers for other frameworks, one file each. Each needs the extra of its name, and a server or a loaded model."""
