"""Delivers orders to runners until they are acknowledged, and reads from runners what only they have."""
