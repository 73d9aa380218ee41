"""Typed access to one Docker engine, used by the host (environments) and by the runner (workloads)."""
