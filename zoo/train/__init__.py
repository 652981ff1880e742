"""Training: optimizers, schedules, data, metrics, and the loop behind `model.train`. Each part can be used alone."""
