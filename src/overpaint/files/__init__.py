"""Pictures on disk: their names, what is written in them, and what is kept of a job to go on or begin again."""
