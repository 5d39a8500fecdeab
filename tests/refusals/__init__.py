"""What is refused, and how to provoke it: the rows of docs/refusals.md (see `table`)."""
