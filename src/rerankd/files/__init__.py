"""The files of a user: which ones of a folder are read, and the text of each. Knows no command and no index."""
