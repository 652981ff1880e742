"""Models, modules, preprocessing, tasks and results, training, the facade and the command line."""
