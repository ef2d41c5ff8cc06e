"""The storage interface and its engines."""
