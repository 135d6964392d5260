"""The web process's side of the work: who waits, whose turn it is, and the worker as its parent sees it."""
