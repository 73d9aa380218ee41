"""Decisions about which task runs where: pure functions and in-memory tables, with time as an argument."""
