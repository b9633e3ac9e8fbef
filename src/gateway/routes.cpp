#include "gateway/routes.hpp"

#include <utility>

#include "base/file.hpp"
#include "core/quota.hpp"
#include "wire/documents.hpp"

namespace aiv::gateway {
namespace {

bool glob_matches(std::string_view pattern, std::string_view name) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == name;
  const std::string_view head = pattern.substr(0, star);
  const std::string_view tail = pattern.substr(star + 1);
  return name.size() >= head.size() + tail.size() && name.starts_with(head) && name.ends_with(tail);
}

std::string describe(const Version& version) {
  return std::to_string(version.epoch) + "." + std::to_string(version.rev);
}

}  // namespace

Routes::Routes(RouteTable table) : table_(std::move(table)) {
  for (const RouteModel& model : table_.models) models_.emplace(model.name, &model);
  // After all names: an alias never takes one away.
  for (const RouteModel& model : table_.models) {
    for (const std::string& alias : model.aliases) models_.emplace(alias, &model);
  }
  for (const RouteKey& key : table_.keys) {
    keys_.emplace(key.id, &key);
    if (!key.team.empty()) teams_[key.team] = smaller_limits(teams_[key.team], key.team_limits);
  }
}

const RouteModel* Routes::find_model(std::string_view name) const {
  if (const auto found = models_.find(name); found != models_.end()) return found->second;
  constexpr std::string_view kLatest = ":latest";
  if (name.ends_with(kLatest)) {
    name.remove_suffix(kLatest.size());
    if (const auto found = models_.find(name); found != models_.end()) return found->second;
  }
  return nullptr;
}

const RouteKey* Routes::find_key(std::string_view id) const {
  const auto found = keys_.find(id);
  return found == keys_.end() ? nullptr : found->second;
}

KeyLimits Routes::team_limits(std::string_view team) const {
  const auto found = teams_.find(team);
  return found == teams_.end() ? KeyLimits{} : found->second;
}

bool key_allows(const RouteKey* key, std::string_view model) {
  if (key == nullptr || key->models.empty()) return true;
  for (const std::string& pattern : key->models) {
    if (glob_matches(pattern, model)) return true;
  }
  return false;
}

RouteStore::RouteStore(net::Executor executor, std::string path)
    : path_(std::move(path)), current_(std::make_shared<const Routes>(RouteTable{})), written_(executor) {}

Result<> RouteStore::load() {
  auto text = read_file(path_, kTableBytesMax);
  if (!text) {
    if (text.error().code == ErrorCode::kNotFound) return {};
    return std::unexpected(text.error());
  }
  const auto json = parse_json(*text);
  if (!json) return std::unexpected(json.error());
  auto table = wire::route_table_from_json(*json);
  if (!table) return std::unexpected(table.error());
  highest_ = table->version;
  current_ = std::make_shared<const Routes>(std::move(*table));
  return {};
}

net::Task<Result<>> RouteStore::offer(RouteTable table) {
  // One write at a time, or an older file could be renamed over a newer one.
  while (writing_) co_await written_.wait();
  if (table.version < highest_) {
    co_return fail(ErrorCode::kConflict, "an older route table than the one in use", describe(highest_));
  }
  if (table.version == highest_ && table == current_->table()) co_return Result<>{};
  writing_ = true;
  const std::string text = dump_json(wire::to_json(table));
  Result<> written;
  std::function<void()> write = [this, &text, &written] { written = write_file_durably(path_, text); };
  co_await net::run_blocking(write);
  writing_ = false;
  written_.notify();
  if (!written) co_return written;
  highest_ = table.version;
  current_ = std::make_shared<const Routes>(std::move(table));
  co_return Result<>{};
}

}  // namespace aiv::gateway
