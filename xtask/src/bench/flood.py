"""Writes BYTES of log lines as fast as they are taken, and how long that took into the file TIMES names."""

import os
import time

line = b"2026-01-01T00:00:00Z info request served path=/index.html status=200 bytes=5120 ms=3 worker=....\n"
block = line * 320
left = int(os.environ["BYTES"])
began = time.monotonic()
while left > 0:
    left -= os.write(1, block[:left])
seconds = time.monotonic() - began
with open(os.environ["TIMES"] + ".part", "w") as file:
    file.write(str(seconds))
os.rename(os.environ["TIMES"] + ".part", os.environ["TIMES"])
time.sleep(3600)
