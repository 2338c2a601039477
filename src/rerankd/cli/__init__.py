"""The `rerankd` command, a file for each subcommand."""
