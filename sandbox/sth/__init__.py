"""What Sequences import: typed, standard library only."""
