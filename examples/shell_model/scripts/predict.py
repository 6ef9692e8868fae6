"""Draw from what each place had in the same month or week of earlier years."""

import csv
import json
import random
import sys

import yaml

with open("config.yml", encoding="utf-8") as file:
    config = yaml.safe_load(file)
with open("model.json", encoding="utf-8") as file:
    seen = json.load(file)

random.seed(config["seed"])
samples = [f"sample_{number}" for number in range(config["n_samples"])]
with (
    open(sys.argv[1], newline="", encoding="utf-8") as future,
    open(sys.argv[2], "w", newline="", encoding="utf-8") as output,
):
    writer = csv.writer(output)
    writer.writerow(["time_period", "location", *samples])
    for row in csv.DictReader(future):
        season = row["time_period"].split("-")[1]
        cases = seen.get(f"{row['location']}|{season}", [0.0])
        writer.writerow([row["time_period"], row["location"], *random.choices(cases, k=len(samples))])
print("predicted")
