"""The worker's side: a process with one engine, which paints what it is told."""
