"""Prompts and infotexts: their grammar, their tokens, their styles."""
