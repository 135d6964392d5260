"""What hangs on a model: it changes what the networks do, and can be taken off again."""
