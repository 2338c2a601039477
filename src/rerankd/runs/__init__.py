"""The files of retrieval research: runs, judgements, queries and corpora. Knows no model and no measure."""
