"""Backups of the host's state, made and restored on the host's machine from its files.

A backup is one archive: a manifest, a consistent copy of the database, the host's identity key. Rules: a
backup may be made while the host runs and is restored while none does; nothing in an archive is believed that
was not checked.
"""

from kohakuriver.host.backup.create import create_backup
from kohakuriver.host.backup.restore import Restored, restore_backup
from kohakuriver.host.backup.verify import BackupContents, verify_backup

__all__ = ["BackupContents", "Restored", "create_backup", "restore_backup", "verify_backup"]
