"""The commands of the small shell model; they fail in the way that the variable FAULT names."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

fault = os.environ.get("FAULT", "")
print("working")
print("counting places", file=sys.stderr)
if fault == "exits with 1":
    sys.exit("no rain fell")
if fault == "hangs":
    time.sleep(600)
if fault == f"kills its flow in {sys.argv[1]}":
    child = subprocess.Popen(["sleep", "600"])
    Path(os.environ["FAMILY_FILE"]).write_text(f"{os.getpid()} {child.pid} {Path.cwd()}")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
if sys.argv[1] == "train":
    Path("trained.txt").write_text("yes")
    sys.exit()

future, output = map(Path, sys.argv[2:])
keys = [line.split(",")[:2] for line in future.read_text().splitlines()[1:]]
rows = ["time_period,location,sample_0", *(f"{period},{place},1" for period, place in keys)]
content = "\n".join(rows).encode() + b"\n"
if fault != "writes no file":
    faults = {"writes garbage": b"\x89PNG\xff\xfe\x00", "writes nothing": b"", "writes half": content[:60]}
    output.write_bytes(faults.get(fault, content))
