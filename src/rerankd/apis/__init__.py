"""The rerank APIs: what is read, written and refused in the words of each. One file an API; `facts.py` lists them."""
