"""Ranks files of any size: units of the input, each scored and written once. Knows no HTTP and no caller."""
