"""Speed and memory of the engine, and of the reference beside it."""
