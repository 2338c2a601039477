"""A full-text index of files on this machine: the first stage before a reranker. Knows no model."""
