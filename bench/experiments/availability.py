"""Sums `aiv sim --json` runs: good / valid with its Wilson 95 % lower bound, and bad requests by kind."""
import json
import math
import sys

total = good = faults = refused = broken = late = broken_rules = runs = 0
for line in sys.stdin:
    run = json.loads(line)
    runs += 1
    faults += run["faults"]
    broken_rules += len(run["violations"])
    requests = run["requests"]
    total += requests["total"]
    good += requests["good"]
    refused += requests["refused"]
    broken += requests["broken"]
    late += requests["late"]
p = good / total
z = 1.96
low = (p + z * z / (2 * total) - z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))) / (1 + z * z / total)
print(f"{sys.argv[1]}: runs {runs}, faults {faults}, requests {total}, good {100 * p:.3f} % (Wilson lower bound {100 * low:.3f} %), "
      f"refused {refused}, broken {broken}, late {late}, rules broken {broken_rules}")
