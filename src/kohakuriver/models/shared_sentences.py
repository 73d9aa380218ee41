"""Sentences that one part writes and another one, of another version perhaps, looks for."""

PULL_TRIED_AGAIN = "trying again in"
"""In the progress of a pull whose registry is busy or unreachable."""

TASK_EXCEEDED_MEMORY = "the kernel ended it because it exceeded its memory limit"
PROCESS_EXCEEDED_MEMORY = "the kernel ended a process in it because the task exceeded its memory limit"
