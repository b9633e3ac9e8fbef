// The route table as the gateway uses it: an immutable snapshot with indexes, and the store that persists each table
// before it is used, so that a gateway that starts alone serves from the last one.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/documents.hpp"
#include "net/async.hpp"

namespace aiv::gateway {

// A route table as JSON, sent or kept: what is longer is refused.
inline constexpr std::size_t kTableBytesMax = std::size_t{16} << 20;

class Routes {
 public:
  explicit Routes(RouteTable table);
  Routes(const Routes&) = delete;
  Routes& operator=(const Routes&) = delete;
  [[nodiscard]] const RouteTable& table() const { return table_; }
  // A deployment's name or one of its aliases; exact, then without ":latest". nullptr: unknown.
  [[nodiscard]] const RouteModel* find_model(std::string_view name) const;
  [[nodiscard]] const RouteKey* find_key(std::string_view id) const;
  // What the keys of a team state together.
  [[nodiscard]] KeyLimits team_limits(std::string_view team) const;

 private:
  RouteTable table_;
  std::map<std::string_view, const RouteModel*> models_;
  std::map<std::string_view, const RouteKey*> keys_;
  std::map<std::string_view, KeyLimits> teams_;
};
using RoutesPtr = std::shared_ptr<const Routes>;

// Whether the key may use the model: its list is empty, or has the name, or a glob with one '*' that matches.
[[nodiscard]] bool key_allows(const RouteKey* key, std::string_view model);

class RouteStore {
 public:
  // `path` = DIR/gateway/routes.json
  RouteStore(net::Executor executor, std::string path);
  // What was persisted; an absent file is fine (an empty table), a damaged one is an error and leaves it empty.
  Result<> load();
  [[nodiscard]] RoutesPtr current() const { return current_; }
  // Persists, then uses. kConflict for an older one (and for other content under the same version), with the highest
  // version in `where` as "epoch.rev".
  net::Task<Result<>> offer(RouteTable table);

 private:
  std::string path_;
  RoutesPtr current_;
  net::Signal written_;
  bool writing_ = false;
  Version highest_;  // being persisted or in use
};

}  // namespace aiv::gateway
