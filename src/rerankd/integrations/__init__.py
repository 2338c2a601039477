"""Rerankers for other frameworks, one file each; each needs the extra of its name, and a server or a loaded model."""
