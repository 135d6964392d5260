"""Endless captioned pictures: a painted place, a time of day, weather, up to two objects and a style."""
