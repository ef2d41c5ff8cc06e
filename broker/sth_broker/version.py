"""Which version runs."""

from importlib import metadata


def version() -> str:
    """Of the installed distribution; "0" when it runs from a tree that was never installed."""
    try:
        return metadata.version("sth-edge")
    except metadata.PackageNotFoundError:
        return "0"
