"""The commands of the shell model that is trained for each place."""

import csv
import os
import sys
from pathlib import Path

with Path(sys.argv[2]).open() as file:
    rows = list(csv.DictReader(file))
(place,) = {row["location"] for row in rows}
with Path(os.environ["CALLS"]).open("a") as calls:
    calls.write(f"{sys.argv[1]} {place}\n")
if place in os.environ.get("FAIL_FOR", "").split(","):
    sys.exit(f"no rain fell in {place}")
if sys.argv[1] == "train":
    cases = [float(row["disease_cases"]) for row in rows if row["disease_cases"]]
    Path("mean.txt").write_text(repr(sum(cases) / len(cases)))
    sys.exit()
mean = float(Path("mean.txt").read_text())
with Path(sys.argv[3]).open("w") as file:
    print("time_period,location,sample_0,sample_1,sample_2", file=file)
    for row in rows:
        print(f"{row['time_period']},{place},{mean},{mean + 1},{mean + 2}", file=file)
