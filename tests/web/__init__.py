"""The pages, most of them in a real browser."""
