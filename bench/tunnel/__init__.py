"""A port of a workload by the tunnel, beside the ways that somebody would take without it."""
