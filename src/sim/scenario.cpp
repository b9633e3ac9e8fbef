#include "sim/scenario.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <sstream>

#define TOML_HEADER_ONLY 1  // no library that the program would need at run time
#include <toml++/toml.h>

#include "base/file.hpp"
#include "base/units.hpp"

namespace aiv::sim {

namespace {

constexpr std::size_t kFileBytesMax = 1024 * 1024;
constexpr std::int64_t kDayMs = 86'400'000;

struct Name {
  FaultKind kind;
  std::string_view text;
};
constexpr Name kNames[] = {
    {FaultKind::kEngineKill, "engine_kill"},
    {FaultKind::kEngineStop, "engine_stop"},
    {FaultKind::kAgentKill, "agent_kill"},
    {FaultKind::kAgentStop, "agent_stop"},
    {FaultKind::kNodeKill, "node_kill"},
    {FaultKind::kNodeCut, "node_cut"},
    {FaultKind::kOneWayCut, "one_way_cut"},
    {FaultKind::kSlowNetwork, "slow_network"},
    {FaultKind::kSlowLoad, "slow_load"},
    {FaultKind::kLoadOom, "load_oom"},
    {FaultKind::kLoadExit, "load_exit"},
    {FaultKind::kLoadHang, "load_hang"},
    {FaultKind::kMemoryStolen, "memory_stolen"},
    {FaultKind::kControllerKill, "controller_kill"},
    {FaultKind::kControllerStop, "controller_stop"},
    {FaultKind::kControllerSplit, "controller_split"},
    {FaultKind::kGatewayKill, "gateway_kill"},
    {FaultKind::kStoreLeader, "store_leader"},
    {FaultKind::kDiskFull, "disk_full"},
    {FaultKind::kMassCut, "mass_cut"},
    {FaultKind::kStaleDocuments, "stale_documents"},
    {FaultKind::kDrain, "drain"},
};

std::optional<FaultKind> kind_of(std::string_view text) {
  for (const Name& name : kNames) {
    if (name.text == text) return name.kind;
  }
  return std::nullopt;
}

// Reads one table; remembers the first fault. A key that nobody asked for is one.
class Table {
 public:
  Table(const toml::table& table, std::string path, const std::string& file)
      : table_(table), path_(std::move(path)), file_(file) {}

  void number(std::string_view key, double& out, double low, double high) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto value = node->value<double>();
    if (!value || !node->is_number() || !std::isfinite(*value) || *value < low || *value > high) {
      return refuse(*node, key, "must be a number from " + text_of(low) + " to " + text_of(high));
    }
    out = *value;
  }
  void integer(std::string_view key, int& out, int low, int high) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto value = node->value<std::int64_t>();
    if (!value || !node->is_integer() || *value < low || *value > high) {
      return refuse(*node, key,
                    "must be an integer from " + std::to_string(low) + " to " + std::to_string(high));
    }
    out = static_cast<int>(*value);
  }
  void boolean(std::string_view key, bool& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (!node->is_boolean()) return refuse(*node, key, "must be true or false");
    out = *node->value<bool>();
  }
  void text(std::string_view key, std::string& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (!node->is_string()) return refuse(*node, key, "must be a text");
    out = *node->value<std::string>();
  }
  void duration(std::string_view key, std::int64_t& out, std::int64_t low, std::int64_t high) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto value =
        node->is_string() ? parse_duration_ms(*node->value<std::string>()) : Result<std::int64_t>(-1);
    if (!value || *value < low || *value > high) {
      return refuse(*node, key,
                    "must be a time like \"90s\", \"5m\" or \"6h\", at most " + format_duration_ms(high));
    }
    out = *value;
  }
  void bytes(std::string_view key, Bytes& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto value =
        node->is_string() ? parse_bytes(*node->value<std::string>()) : Result<std::int64_t>(-1);
    if (!value || *value < 0 || *value > (std::int64_t{1} << 50))
      return refuse(*node, key, "must be a size like \"4GiB\"");
    out = *value;
  }
  void texts(std::string_view key, std::vector<std::string>& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const toml::array* list = node->as_array();
    if (list == nullptr || list->empty() || list->size() > 1000)
      return refuse(*node, key, "must be a list of 1 to 1000 texts");
    out.clear();
    for (const toml::node& entry : *list) {
      if (!entry.is_string()) return refuse(entry, key, "must be a list of texts");
      out.push_back(*entry.value<std::string>());
    }
  }
  const toml::table* table(std::string_view key) {
    const toml::node* node = find(key);
    if (node == nullptr) return nullptr;
    if (!node->is_table()) refuse(*node, key, "must be a table { ... }");
    return node->as_table();
  }
  const toml::array* list(std::string_view key) {
    const toml::node* node = find(key);
    if (node == nullptr) return nullptr;
    if (!node->is_array()) refuse(*node, key, "must be a list [ { ... } ]");
    return node->as_array();
  }
  void refuse(const toml::node& node, std::string_view key, const std::string& why) {
    if (error_) return;
    error_ = Error{ErrorCode::kInvalidArgument, path_ + printable(key, 60) + ": " + why,
                   file_ + ":" + std::to_string(node.source().begin.line)};
  }
  // After all keys were asked for: the rest is unknown.
  std::optional<Error> finish() {
    if (error_) return error_;
    const toml::key* first = nullptr;
    for (const auto& [key, node] : table_) {
      if (std::ranges::find(known_, key.str()) != known_.end()) continue;
      if (first == nullptr || key.source().begin.line < first->source().begin.line) first = &key;
    }
    if (first == nullptr) return std::nullopt;
    return Error{ErrorCode::kInvalidArgument,
                 path_ + printable(first->str(), 60) + ": is not a key of a scenario",
                 file_ + ":" + std::to_string(first->source().begin.line)};
  }
  const toml::table& raw() const { return table_; }
  void all_known() {
    for (const auto& [key, node] : table_) known_.emplace_back(key.str());
  }

 private:
  const toml::node* find(std::string_view key) {
    known_.emplace_back(key);
    return table_.get(key);
  }
  static std::string text_of(double value) {
    std::ostringstream out;
    out << value;
    return out.str();
  }
  const toml::table& table_;
  std::string path_;
  std::string file_;
  std::vector<std::string> known_;
  std::optional<Error> error_;
};

std::optional<Error> read_cluster(const toml::table& raw, const std::string& file, Scenario& out) {
  Table table(raw, "cluster.", file);
  table.integer("servers", out.servers, 1, 7);
  table.text("store", out.store);
  if (out.store != "sqlite" && out.store != "etcd")
    table.refuse(raw, "store", "must be \"sqlite\" or \"etcd\"");
  table.integer("nodes", out.nodes, 1, 1000);
  table.texts("gpus", out.gpus);
  table.integer("models", out.models, 1, 1000);
  table.integer("first_model", out.first_model, 0, 1000);
  table.integer("spare_replicas", out.spare_replicas, 0, 7);
  table.integer("slots", out.slots, 0, 64);
  table.integer("replicas_min", out.replicas_min, 0, 100);
  table.integer("replicas_max", out.replicas_max, 0, 100);
  if ((out.replicas_min < 0) != (out.replicas_max < 0))
    table.refuse(raw, "replicas_max", "goes together with replicas_min");
  if (out.replicas_max < out.replicas_min) table.refuse(raw, "replicas_max", "is below replicas_min");
  return table.finish();
}

std::optional<Error> read_load(const toml::table& raw, const std::string& file, Scenario& out) {
  Table table(raw, "load.", file);
  table.number("rps", out.rps, 0, 10'000);
  table.number("noise", out.noise, 0, 1);
  table.integer("mean_tokens", out.mean_tokens, 1, 100'000);
  table.integer("mean_prompt", out.mean_prompt, 1, 100'000);
  table.duration("ttft", out.ttft_ms, 1, 3'600'000);
  table.text("trace", out.trace);
  return table.finish();
}

std::optional<Error> read_faults(const toml::table& raw, const std::string& file, Scenario& out) {
  Table table(raw, "faults.", file);
  table.number("per_hour", out.faults_per_hour, 0, 36'000);
  table.boolean("overlap", out.overlap);
  table.duration("for_min", out.for_min_ms, 1, kDayMs);
  table.duration("for_max", out.for_max_ms, 1, kDayMs);
  if (out.for_max_ms < out.for_min_ms) table.refuse(raw, "for_max", "is below for_min");
  if (const toml::table* mix = table.table("mix")) {
    for (const auto& [key, node] : *mix) {
      const auto kind = kind_of(key.str());
      if (!kind) {
        return Error{ErrorCode::kInvalidArgument,
                     "faults.mix." + printable(key.str(), 60) + ": is not a kind of fault",
                     file + ":" + std::to_string(key.source().begin.line)};
      }
      const auto weight = node.value<std::int64_t>();
      if (!weight || !node.is_integer() || *weight < 0 || *weight > 1'000'000) {
        table.refuse(node, "mix." + std::string(key.str()), "must be an integer from 0 to 1000000");
        break;
      }
      out.mix.emplace_back(*kind, static_cast<int>(*weight));
    }
  }
  auto error = table.finish();
  int sum = 0;
  for (const auto& [kind, weight] : out.mix) sum += weight > 0 ? 1 : 0;
  if (!error && out.faults_per_hour > 0 && sum == 0) {
    error = Error{ErrorCode::kInvalidArgument, "faults.mix: names no kind of fault",
                  file + ":" + std::to_string(raw.source().begin.line)};
  }
  return error;
}

std::optional<Error> read_fault(const toml::table& raw, std::size_t index, const std::string& file,
                                Scenario& out) {
  Table table(raw, "fault[" + std::to_string(index) + "].", file);
  ScheduledFault fault;
  std::string kind;
  table.duration("at", fault.at_ms, 0, 366 * kDayMs);
  table.text("kind", kind);
  table.text("target", fault.target);
  table.duration("for", fault.for_ms, 0, 366 * kDayMs);
  table.bytes("bytes", fault.bytes);
  table.number("share", fault.share, 0, 1);
  const auto known = kind_of(kind);
  if (!known) table.refuse(raw, "kind", "is not a kind of fault: \"" + printable(kind, 60) + "\"");
  const std::string number = fault.target.starts_with('n') ? fault.target.substr(1) : "";
  const bool digits = !number.empty() && number.size() <= 4 &&
                      std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; });
  if (!fault.target.empty() &&
      (!digits || std::atoi(number.c_str()) < 1 || std::atoi(number.c_str()) > out.nodes)) {
    table.refuse(raw, "target", "is not a node (n1 to n" + std::to_string(out.nodes) + ")");
  }
  if (known) fault.kind = *known;
  out.faults.push_back(fault);
  return table.finish();
}

std::optional<Error> read_phases(const toml::array& list, const std::string& file, Scenario& out) {
  std::size_t index = 0;
  for (const toml::node& entry : list) {
    const std::string path = "phase[" + std::to_string(index++) + "]";
    const std::string where = file + ":" + std::to_string(entry.source().begin.line);
    if (!entry.is_table())
      return Error{ErrorCode::kInvalidArgument, path + ": must be a table { ... }", where};
    if (index > 10'000) return Error{ErrorCode::kInvalidArgument, path + ": more than 10000 phases", where};
    Table table(*entry.as_table(), path + ".", file);
    LoadPhase phase;
    table.duration("at", phase.at_ms, 0, 366 * kDayMs);
    table.integer("model", phase.model, 0, out.models);
    table.number("rps", phase.rps, 0, 10'000);
    out.phases.push_back(phase);
    if (auto error = table.finish()) return error;
  }
  return std::nullopt;
}

std::optional<Error> read_expectation(const toml::table& raw, const std::string& file, Expectation& out) {
  Table table(raw, "expect.", file);
  table.duration("from", out.from_ms, 0, 366 * kDayMs);
  table.integer("moves_max", out.moves_max, 0, 1'000'000);
  table.integer("moves_min", out.moves_min, 0, 1'000'000);
  table.integer("scaled_max", out.scaled_max, 0, 1'000'000);
  table.integer("scaled_min", out.scaled_min, 0, 1'000'000);
  table.integer("evicted_max", out.evicted_max, 0, 1'000'000);
  table.integer("evicted_min", out.evicted_min, 0, 1'000'000);
  table.number("good_min", out.good_min, 0, 1);
  return table.finish();
}

std::optional<Error> read_quota(const toml::table& raw, const std::string& file, Quota& out) {
  Table table(raw, "quota.", file);
  table.integer("keys", out.keys, 1, 1000);
  const auto limits = [&table](const std::string& prefix, KeyLimits& to) {
    const auto read = [&](const char* name, auto& limit) {
      int value = 0;
      table.integer(prefix + name, value, 0, 1'000'000'000);
      limit = value;
    };
    read("requests_per_min", to.requests_per_min);
    read("tokens_per_min", to.tokens_per_min);
    read("concurrency", to.concurrency);
    read("tokens_per_day", to.tokens_per_day);
  };
  limits("", out.key);
  limits("team_", out.team);
  if (out.keys == 0) table.refuse(raw, "keys", "is missing: how many keys there are");
  return table.finish();
}

std::optional<Error> read_rest(Table& top, const std::string& file, Scenario& out) {
  if (const toml::table* raw = top.table("run")) {
    Table table(*raw, "run.", file);
    table.duration("duration", out.duration_ms, 1000, 366 * kDayMs);
    table.duration("settle", out.settle_ms, 0, kDayMs);
    if (auto error = table.finish()) return error;
  }
  if (const toml::array* list = top.list("phase")) {
    if (auto error = read_phases(*list, file, out)) return error;
  }
  if (const toml::table* raw = top.table("expect")) {
    if (auto error = read_expectation(*raw, file, out.expect)) return error;
  }
  if (const toml::table* raw = top.table("quota")) {
    if (auto error = read_quota(*raw, file, out.quota)) return error;
  }
  if (const toml::table* raw = top.table("network")) {
    Table table(*raw, "network.", file);
    table.duration("delay", out.delay_ms, 0, 10'000);
    table.duration("jitter", out.jitter_ms, 0, 10'000);
    if (auto error = table.finish()) return error;
  }
  if (const toml::table* raw = top.table("admin")) {
    Table table(*raw, "admin.", file);
    table.number("per_hour", out.admin_per_hour, 0, 3600);
    if (auto error = table.finish()) return error;
  }
  if (const toml::table* raw = top.table("policy")) {
    Table table(*raw, "policy.", file);
    table.boolean("replace", out.replace);
    table.boolean("retry", out.retry);
    if (auto error = table.finish()) return error;
  }
  if (const toml::array* list = top.list("fault")) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      const toml::table* raw = list->get(i)->as_table();
      if (raw == nullptr) {
        return Error{ErrorCode::kInvalidArgument, "fault[" + std::to_string(i) + "]: must be a table { ... }",
                     file + ":" + std::to_string(list->get(i)->source().begin.line)};
      }
      if (auto error = read_fault(*raw, i, file, out)) return error;
    }
  }
  return top.finish();
}

}  // namespace

std::string_view to_string(FaultKind kind) {
  for (const Name& name : kNames) {
    if (name.kind == kind) return name.text;
  }
  return "unknown";
}

const std::vector<FaultKind>& all_fault_kinds() {
  static const std::vector<FaultKind> kinds = [] {
    std::vector<FaultKind> out;
    for (const Name& name : kNames) out.push_back(name.kind);
    return out;
  }();
  return kinds;
}

Result<Scenario> parse_scenario(std::string_view text, const std::string& name) {
  Scenario out;
  out.name = name;
  toml::table parsed;
  try {
    parsed = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return fail(ErrorCode::kInvalidArgument, printable(error.description(), 200),
                name + ":" + std::to_string(error.source().begin.line));
  }
  Table top(parsed, "", name);
  const toml::table* cluster = top.table("cluster");
  if (cluster == nullptr) {
    auto error = top.finish();
    return error ? std::unexpected(*error)
                 : fail(ErrorCode::kInvalidArgument, "cluster: is missing", name + ":1");
  }
  if (auto error = read_cluster(*cluster, name, out)) return std::unexpected(*error);
  if (const toml::table* raw = top.table("load")) {
    if (auto error = read_load(*raw, name, out)) return std::unexpected(*error);
  }
  if (const toml::table* raw = top.table("faults")) {
    if (auto error = read_faults(*raw, name, out)) return std::unexpected(*error);
  }
  if (auto error = read_rest(top, name, out)) return std::unexpected(*error);
  if (out.gpus.empty()) out.gpus = {"RTX 3060:12GiB"};
  return out;
}

Result<Scenario> read_scenario(const std::string& path) {
  auto text = read_file(path, kFileBytesMax);
  if (!text) return std::unexpected(text.error());
  const auto slash = path.find_last_of('/');
  return parse_scenario(*text, slash == std::string::npos ? path : path.substr(slash + 1));
}

}  // namespace aiv::sim
