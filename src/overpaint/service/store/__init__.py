"""What is kept below a data folder: jobs, their events, their pictures."""
