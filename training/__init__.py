"""How the built-in model is made: pictures with exact captions, three networks trained on them, one checkpoint."""
