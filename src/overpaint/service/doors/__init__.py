"""The ways in: each door translates the words of its clients, both ways."""
