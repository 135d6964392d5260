"""The service: a crash-safe queue behind three APIs. The web process imports no torch; one worker owns the engine."""
