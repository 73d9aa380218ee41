"""Several nodes on one machine, of which everything can be broken; `docs/lab.md` says what is in it."""
