"""The version, for those who must not import the whole package's face."""

__version__ = "0.1.0"
