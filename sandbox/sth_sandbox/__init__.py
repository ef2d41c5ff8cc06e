"""Runs other people's programs: the spawner, its sandbox, and the runners inside it.

Standard library and ctypes only, and nothing else of this project."""
