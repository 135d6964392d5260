"""From a request to a plan: everything decided before anything is computed. No torch."""
