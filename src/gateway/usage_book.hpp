// What was used, per day (UTC), key, team, user and model: DIR/gateway/usage/2026-11-22.json, one file a day, rewritten at most
// once a second while something changes. A gateway that is killed loses at most that second.
//
// The user is what a client says of itself (OpenAI's `user`, Open WebUI's header): good for the accounts of a site's
// own front end, no proof of anything.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "base/json.hpp"
#include "net/async.hpp"

namespace aiv::gateway {

inline constexpr std::size_t kUsageRowsMax = 50'000;  // of a day; beyond that users are not told apart
inline constexpr std::size_t kUserBytesMax = 128;
inline constexpr int kUsageDaysMax = 92;              // that one question may ask for

struct UsageCount {
  std::int64_t requests = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t generated_tokens = 0;
};

class UsageBook {
 public:
  struct Key {
    std::string key_id;
    std::string user;
    std::string model;
    // Whose team it counted for, as it was then: a key may move. nullopt: written by a version that did not note it.
    std::optional<std::string> team;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  // `directory` = DIR/gateway/usage
  UsageBook(net::Executor executor, std::string directory);
  // Reads today's file; an absent one is fine, a damaged one is set aside by its error and nothing is counted on it.
  Result<> load(std::int64_t now_unix_ms);
  void add(const Key& key, const UsageCount& count, std::int64_t now_unix_ms);
  [[nodiscard]] const std::map<Key, UsageCount>& today() const { return rows_; }
  // Writes changes each second, for ever.
  net::Task<> run();
  Result<> flush();
  // The rows of the last `days` days, today included, newest day first: [{day, key, team, user, model, requests, ..}]. Only
  // those of `only_key`, unless it is empty. Reads files.
  [[nodiscard]] static Json rows_of_day(const std::string& directory, const std::string& day, const std::string& only_key);
  [[nodiscard]] Json rows_of_today(const std::string& only_key) const;
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] const std::string& day() const { return day_; }

 private:
  void turn_day(std::int64_t now_unix_ms);
  [[nodiscard]] std::string text() const;
  std::string directory_;
  std::string day_;  // "2026-11-22"
  std::map<Key, UsageCount> rows_;
  bool changed_ = false;
  net::Signal something_;
};

// What may be asked for in sum: "key", "team", "user", "model".
[[nodiscard]] bool is_usage_group(std::string_view field);
// The rows added up: one for each day and value of `field`, of which nothing else is kept (of a key its name and team).
[[nodiscard]] Json sum_usage(const Json& rows, const std::string& field);

// "2026-11-22" of a time.
std::string utc_day(std::int64_t unix_ms);

}  // namespace aiv::gateway
