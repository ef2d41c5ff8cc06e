"""The program that runs on every joined machine: one outbound link, and Instances behind it."""
