"""The embedded model: sentence embeddings in 16 languages, combined with the words that query and document share.

It needs no model hub. docs/embedded-model.md describes its limits.
"""
