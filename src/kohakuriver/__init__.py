"""KohakuRiver: a self-hosted cluster manager."""

__version__ = "2.0.0.dev0"
