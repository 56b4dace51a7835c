"""The compiled core. Use the names that `irlstack` exports."""

__all__ = ["__version__"]

__version__: str
