"""Processes that read what strangers have sent, and may die of it: what a file is, what is in a body."""
