"""What is said of the kernel's memory killer; here, so that clients find it in a message."""

OF_IT = "the kernel ended it because it exceeded its memory limit"
OF_A_PART = "the kernel ended a process in it because the task exceeded its memory limit"
