"""One way in for all doors: a request is judged, becomes a job, is handed in and waited for."""
