"""The store in SQLite, one file on this machine. Nothing outside of this room knows what is SQLite's."""
