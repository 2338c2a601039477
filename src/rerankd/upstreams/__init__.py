"""Passes calls to other rerank servers: which one, when again, and what an answer is worth. Knows no caller and no key
of a caller, no ledger and no HTTP server."""
