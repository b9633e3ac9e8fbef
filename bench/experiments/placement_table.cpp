// Static placement over random labs, simulated: the planner and its ablations against the usual rules.
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "systems.hpp"

namespace {

using namespace aiv;
using namespace aiv::experiments;

struct Score {
  double allocated = 0, covered = 0, twice = 0, value = 0;
};

Score score_of(PlanInput input, const std::vector<PlanPlacement>& placements, double bound) {
  Score score;
  Bytes total = 0, held = 0;
  std::map<std::string, double> bandwidth;
  for (const PlanNode& node : input.nodes) {
    for (const PlanDevice& device : node.devices) {
      total += device.vram_bytes;
      bandwidth[device.id] = device.bandwidth_bytes_per_s;
    }
  }
  double value = 0;
  for (const PlanModel& model : input.models) {
    int replicas = 0;
    double speed = 0;
    for (const PlanPlacement& placement : placements) {
      if (placement.model != model.id) continue;
      ++replicas;
      double slowest = 1e300;
      for (const PlanPart& part : placement.parts) {
        held += part.bytes;
        slowest = std::min(slowest, bandwidth[part.device]);
      }
      speed += replica_speed(slowest, model.variants.front().bytes);
    }
    score.covered += replicas >= 1 ? 1.0 : 0.0;
    score.twice += replicas >= 2 ? 1.0 : 0.0;
    if (replicas >= 1) value += model.weight * (100 + (replicas >= 2 ? 30 : 0) + 20 * std::min(1.0, speed / model.demand_tokens_per_s));
  }
  score.allocated = static_cast<double>(held) / static_cast<double>(total);
  score.covered /= static_cast<double>(input.models.size());
  score.twice /= static_cast<double>(input.models.size());
  score.value = bound > 0 ? value / bound : 0;
  return score;
}

}  // namespace

void placement_table(int labs) {
  std::printf("simulated, static; %d random labs a row, seeds 1-%d; allocated / covered / two replicas / value of the bound\n", labs, labs);
  std::printf("| nodes, wanted load |");
  for (const System& system : systems()) std::printf(" %s |", system.name);
  std::printf("\n| --- |");
  for (std::size_t i = 0; i < systems().size(); ++i) std::printf(" --- |");
  std::printf("\n");
  for (const auto& [nodes, load] : {std::pair{6, 0.8}, std::pair{6, 1.3}, std::pair{10, 0.8}, std::pair{10, 1.3}, std::pair{20, 2.0}}) {
    std::vector<Score> sums(systems().size());
    for (int lab = 1; lab <= labs; ++lab) {
      const PlanInput input = make_lab(static_cast<std::uint64_t>(lab), nodes, load);
      double bound = 0;
      (void)ours(input, true, 200, 4, &bound);
      for (std::size_t i = 0; i < systems().size(); ++i) {
        const Score score = score_of(input, systems()[i].place(input), bound);
        sums[i].allocated += score.allocated / labs;
        sums[i].covered += score.covered / labs;
        sums[i].twice += score.twice / labs;
        sums[i].value += score.value / labs;
      }
    }
    std::printf("| %d, %.1f |", nodes, load);
    for (const Score& s : sums) std::printf(" %.2f/%.2f/%.2f/%.2f |", s.allocated, s.covered, s.twice, s.value);
    std::printf("\n");
    std::fflush(stdout);
  }
}
