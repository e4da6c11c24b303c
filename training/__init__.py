"""One run: its settings, its directory, `fit` and what happens beside it."""
