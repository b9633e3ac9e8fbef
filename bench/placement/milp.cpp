#include "milp.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <sstream>

#include "base/units.hpp"

namespace aiv::bench {
namespace {

struct Choice {
  std::size_t model = 0;
  std::size_t variant = 0;
  std::size_t node = 0;
  unsigned devices = 0;  // bits
  std::string name;
};

double mib(Bytes bytes) { return static_cast<double>(bytes) / static_cast<double>(kMiB); }

std::string number(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.12g", value);
  return text;
}

bool runs(const PlanVariant& variant, const PlanDevice& device) {
  return std::find(variant.backends.begin(), variant.backends.end(), device.backend) != variant.backends.end();
}

void each_choice(const PlanInput& input, const std::function<void(const Choice&)>& visit) {
  for (std::size_t m = 0; m < input.models.size(); ++m) {
    for (std::size_t v = 0; v < input.models[m].variants.size(); ++v) {
      const PlanVariant& variant = input.models[m].variants[v];
      for (std::size_t n = 0; n < input.nodes.size(); ++n) {
        const PlanNode& node = input.nodes[n];
        if (node.state != NodePlanState::kSchedulable) continue;
        for (unsigned set = 1; set < (1U << node.devices.size()); ++set) {
          Bytes room = 0;
          int parts = 0;
          bool possible = true;
          for (std::size_t d = 0; d < node.devices.size(); ++d) {
            if ((set >> d & 1U) == 0) continue;
            const PlanDevice& device = node.devices[d];
            ++parts;
            possible = possible && runs(variant, device) && device.free_bytes > device.overhead_bytes;
            room += device.free_bytes - device.overhead_bytes;
          }
          if (!possible || room < variant.bytes || (parts > 1 && !variant.splittable)) continue;
          visit({m, v, n, set,
                 "x_" + std::to_string(m) + "_" + std::to_string(v) + "_" + std::to_string(n) + "_" + std::to_string(set)});
        }
      }
    }
  }
}

std::string part_name(const Choice& choice, std::size_t device) {
  return "y" + choice.name.substr(1) + "_" + std::to_string(device);
}

class Writer {
 public:
  explicit Writer(const PlanInput& input) : input_(input), choices_of_(input.models.size()) {
    each_choice(input, [this](const Choice& c) { add(c); });
  }

  std::string run() {
    out_ << "Maximize\n obj:";
    for (std::size_t m = 0; m < input_.models.size(); ++m) {
      const PlanModel& model = input_.models[m];
      const std::string id = std::to_string(m);
      const bool demanding = model.demand_tokens_per_s > 0;
      term(model.weight * (demanding ? 100 : 120), "z_" + id);
      term(model.weight * 30, "h_" + id);
      if (demanding) term(model.weight * 20, "s_" + id);
    }
    out_ << "\nSubject To\n";
    for (std::size_t m = 0; m < input_.models.size(); ++m) model_rows(m);
    for (const auto& [key, row] : devices_) {
      const PlanDevice& device = input_.nodes[key.first].devices[key.second];
      out_ << row << " <= " << number(mib(device.free_bytes)) << "\n";
    }
    out_ << parts_.str();
    out_ << "Bounds\n";
    for (std::size_t m = 0; m < input_.models.size(); ++m) {
      out_ << " z_" << m << " <= 1\n h_" << m << " <= 1\n";
      if (input_.models[m].demand_tokens_per_s > 0) out_ << " s_" << m << " <= 1\n";
    }
    for (const std::string& name : domains_) out_ << " " << name << " <= 1\n";
    out_ << "Binaries\n";
    for (const auto& list : choices_of_) {
      for (const Choice& c : list) out_ << " " << c.name << "\n";
    }
    out_ << "End\n";
    return out_.str();
  }

 private:
  void term(double factor, const std::string& name) { out_ << " + " << number(factor) << " " << name << "\n"; }

  void add(const Choice& c) {
    choices_of_[c.model].push_back(c);
    const PlanNode& node = input_.nodes[c.node];
    const PlanVariant& variant = input_.models[c.model].variants[c.variant];
    const bool split = (c.devices & (c.devices - 1)) != 0;
    std::string sum;
    for (std::size_t d = 0; d < node.devices.size(); ++d) {
      if ((c.devices >> d & 1U) == 0) continue;
      std::string& row = devices_[{c.node, d}];
      const double overhead = mib(node.devices[d].overhead_bytes);
      if (!split) {
        row += " + " + number(mib(variant.bytes) + overhead) + " " + c.name + "\n";
        continue;
      }
      const std::string part = part_name(c, d);
      row += " + " + part + " + " + number(overhead) + " " + c.name + "\n";
      sum += " + " + part;
      const double room = mib(node.devices[d].free_bytes) - overhead;
      parts_ << " " << part << " - " << number(room) << " " << c.name << " <= 0\n";
    }
    if (split) parts_ << sum << " - " << number(mib(variant.bytes)) << " " << c.name << " = 0\n";
  }

  double share(const Choice& c) const {
    const PlanModel& model = input_.models[c.model];
    double slowest = 1e300;
    for (std::size_t d = 0; d < input_.nodes[c.node].devices.size(); ++d) {
      if ((c.devices >> d & 1U) != 0) {
        slowest = std::min(slowest, input_.nodes[c.node].devices[d].bandwidth_bytes_per_s);
      }
    }
    return std::min(1.0, replica_speed(slowest, model.variants[c.variant].bytes) / model.demand_tokens_per_s);
  }

  void model_rows(std::size_t m) {
    const PlanModel& model = input_.models[m];
    const std::string id = std::to_string(m);
    std::map<std::string, std::string> by_domain;
    std::map<std::size_t, std::string> by_node;
    std::string all;
    std::string speed;
    for (const Choice& c : choices_of_[m]) {
      const PlanNode& node = input_.nodes[c.node];
      by_domain[node.failure_domain.empty() ? node.id : node.failure_domain] += " - " + c.name + "\n";
      by_node[c.node] += " + " + c.name + "\n";
      all += " + " + c.name + "\n";
      if (model.demand_tokens_per_s > 0) speed += " - " + number(share(c)) + " " + c.name + "\n";
    }
    std::string cover = " z_" + id + " + h_" + id;
    int k = 0;
    for (const auto& [domain, row] : by_domain) {
      const std::string name = "u_" + id + "_" + std::to_string(k++);
      domains_.push_back(name);
      out_ << " " << name << row << " <= 0\n";
      cover += " - " + name;
    }
    out_ << cover << " <= 0\n";
    if (model.demand_tokens_per_s > 0) out_ << " s_" << id << speed << " <= 0\n";
    for (const auto& [node, row] : by_node) out_ << row << " <= 1\n";
    if (!all.empty()) out_ << all << " <= " << model.max_replicas << "\n";
  }

  const PlanInput& input_;
  std::vector<std::vector<Choice>> choices_of_;
  std::map<std::pair<std::size_t, std::size_t>, std::string> devices_;
  std::vector<std::string> domains_;
  std::ostringstream parts_;
  std::ostringstream out_;
};

}  // namespace

std::string to_lp(const PlanInput& input) { return Writer(input).run(); }

std::vector<PlanPlacement> from_solution(const PlanInput& input, std::istream& lines) {
  std::map<std::string, double> values;
  std::string name;
  for (double value = 0; lines >> name >> value;) values[name] = value;
  std::vector<PlanPlacement> placements;
  each_choice(input, [&](const Choice& c) {
    if (!values.contains(c.name) || values.at(c.name) < 0.5) return;
    const PlanNode& node = input.nodes[c.node];
    const PlanVariant& variant = input.models[c.model].variants[c.variant];
    PlanPlacement p;
    p.model = input.models[c.model].id;
    p.variant = variant.id;
    p.node = node.id;
    Bytes rest = variant.bytes;
    const bool split = (c.devices & (c.devices - 1)) != 0;
    for (std::size_t d = 0; d < node.devices.size(); ++d) {
      if ((c.devices >> d & 1U) == 0) continue;
      Bytes bytes = variant.bytes;
      if (split) {
        const auto it = values.find(part_name(c, d));
        bytes = it == values.end() ? 0 : std::llround(it->second * static_cast<double>(kMiB));
        bytes = std::min(bytes, rest);
      }
      rest -= bytes;
      if (bytes > 0) p.parts.push_back({node.devices[d].id, bytes});
    }
    if (!p.parts.empty()) p.parts.back().bytes += rest;  // rounding
    placements.push_back(std::move(p));
  });
  return placements;
}

}  // namespace aiv::bench
