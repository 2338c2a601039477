"""The tables' history, run by `Database.upgrade`."""
