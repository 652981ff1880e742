"""The operator set: declarations, graph, tracing, gradients, execution and devices."""
