"""The version of this distribution, as it was installed."""


def version() -> str:
    # Imported here: it takes longer than all that a short command does besides.
    from importlib import metadata

    return metadata.version("sth-edge")
