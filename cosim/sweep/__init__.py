"""Many models, machines and cost tables over many traces, on one machine or on a cluster."""
