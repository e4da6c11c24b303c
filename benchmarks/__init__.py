"""Benchmarks of the train step, of its start and of its limits: `python -m benchmarks.train_step`."""
