"""The embedded model: sentence embeddings of 16 languages and the words that query and document share.

It works without a model hub; docs/embedded-model.md says what it can do and what it cannot.
"""
