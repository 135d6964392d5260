"""The reference's import names, as aliases."""
