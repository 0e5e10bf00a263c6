"""Champion: brings the serving model into the run."""
