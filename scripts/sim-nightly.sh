#!/usr/bin/env bash
# Thousands of simulated clusters with faults, two programs at a time; sums up what was simulated and at what speed.
# usage: sim-nightly.sh SEEDS_PER_SCENARIO   (AIV_SIM_FIRST: the first seed, else from the date)
. "$(dirname "$0")/lib.sh"

export AIV_SIM_SEEDS=${1:?usage: sim-nightly.sh SEEDS_PER_SCENARIO}
export AIV_SIM_FIRST=${AIV_SIM_FIRST:-$(date +%Y%m%d)0000}
logs=$ROOT/build/sim-nightly
rm -rf "$logs"
mkdir -p "$logs"
say "seeds from $AIV_SIM_FIRST, $AIV_SIM_SEEDS of each scenario"
status=0
printf '%s\n' chaos epochs memory nodes scale |
  xargs -P "$JOBS" -I{} bash -c "build/release/bin/test_sim_seeds_{} >'$logs/{}.log' 2>&1" || status=1
grep -hE 'days per CPU minute|rule|repeat:|Failure' "$logs"/*.log || true
grep -h 'days per CPU minute' "$logs"/*.log |
  awk -F'[:,]' '{ split($4, d, " "); days += d[1]; split($4, c, "in "); cpu += c[2] + 0; n += 1 }
    END { printf "%d scenarios, %.1f simulated days in %.0f s of CPU: %.2f days per CPU minute\n", n, days, cpu, (cpu > 0 ? days * 60 / cpu : 0) }'
[ $status = 0 ] || die "a rule was broken or a program crashed" "repeat the run that a line above names; logs in $logs"
