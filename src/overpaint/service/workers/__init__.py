"""The parent's side of the processes that work: how one is started, spoken to and ended."""
