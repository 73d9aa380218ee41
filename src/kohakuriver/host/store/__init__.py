"""The host's durable state. Rows become models here and nowhere else.

Rules: one writer (`Store.write`, called from the control loop through one thread); every change of the
cluster is one transaction; readers use connections of their own and see committed rows only.
"""
