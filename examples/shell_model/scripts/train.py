"""Collect the cases that each place had in each month or week of the year."""

import csv
import json
import sys
from collections import defaultdict

seen = defaultdict(list)
with open(sys.argv[1], newline="", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        if row["disease_cases"]:
            season = row["time_period"].split("-")[1]
            seen[f"{row['location']}|{season}"].append(float(row["disease_cases"]))

# What the command leaves in its folder is the trained model.
with open("model.json", "w", encoding="utf-8") as file:
    json.dump(seen, file)
print(f"learnt {len(seen)} seasons of places")
