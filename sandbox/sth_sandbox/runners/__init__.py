"""What runs inside the sandbox beside the author's program."""
