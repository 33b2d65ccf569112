"""Where searches run: processes of this machine, each with its device, under one supervisor."""
