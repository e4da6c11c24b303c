"""The experiments whose results docs/results.md lists, and the command that runs them."""
