#include "gateway/usage_book.hpp"

#include <chrono>
#include <functional>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "base/log.hpp"
#include "base/units.hpp"

namespace aiv::gateway {
namespace {

constexpr std::size_t kFileBytesMax = std::size_t{32} << 20;
constexpr std::int64_t kCountMax = std::int64_t{1} << 60;
constexpr net::seconds kWritePeriod{1};

Json row(const std::string& day, const UsageBook::Key& key, const UsageCount& count) {
  return {{"day", day},
          {"key", key.key_id},
          {"team", key.team ? Json(*key.team) : Json(nullptr)},
          {"user", key.user},
          {"model", key.model},
          {"requests", count.requests},
          {"prompt_tokens", count.prompt_tokens},
          {"generated_tokens", count.generated_tokens}};
}

Result<std::map<UsageBook::Key, UsageCount>> rows_from(const std::string& text) {
  const auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  if (!json->is_object()) return fail(ErrorCode::kCorrupt, "is not an object");
  JsonReader reader(*json, "usage");
  std::map<UsageBook::Key, UsageCount> rows;
  for (const Json& item : reader.array("rows")) {
    if (!item.is_object()) return fail(ErrorCode::kCorrupt, "has a row that is not an object");
    JsonReader r(item, "row");
    UsageBook::Key key{r.string("key", 64), r.string("user", kUserBytesMax), r.string("model", 256), std::nullopt};
    if (r.has("team")) key.team = r.string_or("team", "", 128);
    UsageCount count{r.integer("requests", 0, kCountMax), r.integer("prompt_tokens", 0, kCountMax),
                     r.integer("generated_tokens", 0, kCountMax)};
    if (!r.ok()) return std::unexpected(r.error());
    rows[std::move(key)] = count;
  }
  if (!reader.ok()) return std::unexpected(reader.error());
  return rows;
}

}  // namespace

bool is_usage_group(std::string_view field) { return field == "key" || field == "team" || field == "user" || field == "model"; }

Json sum_usage(const Json& rows, const std::string& field) {
  std::map<std::pair<std::string, std::string>, Json> sums;
  std::vector<std::string> days;  // as they come, newest first
  for (const Json& item : rows) {
    const std::string day = item.value("day", "");
    const std::string value = item.value(field, "");
    if (days.empty() || days.back() != day) days.push_back(day);
    Json& sum = sums[{day, value}];
    if (sum.is_null()) {
      sum = Json{{"day", day}, {field, value}};
      for (const char* detail : {"name", "team"}) {
        if (field == "key" && item.contains(detail)) sum[detail] = item[detail];
      }
    }
    for (const char* count : {"requests", "prompt_tokens", "generated_tokens"}) {
      sum[count] = sum.value(count, std::int64_t{0}) + item.value(count, std::int64_t{0});
    }
  }
  Json out = Json::array();
  for (const std::string& day : days) {
    for (auto& [where, sum] : sums) {
      if (where.first == day) out.push_back(sum);
    }
  }
  return out;
}

std::string utc_day(std::int64_t unix_ms) {
  // By hand: every request asks for it.
  using std::chrono::days;
  const std::chrono::sys_time<std::chrono::milliseconds> when{std::chrono::milliseconds(unix_ms)};
  const std::chrono::year_month_day date{std::chrono::floor<days>(when)};
  const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
  const auto digit = [](unsigned value) { return static_cast<char>('0' + value % 10); };
  const auto month = static_cast<unsigned>(date.month());
  const auto day = static_cast<unsigned>(date.day());
  return {digit(year / 1000), digit(year / 100), digit(year / 10), digit(year), '-', digit(month / 10), digit(month),
          '-',                digit(day / 10),   digit(day)};
}

UsageBook::UsageBook(net::Executor executor, std::string directory)
    : directory_(std::move(directory)), something_(executor) {}

Result<> UsageBook::load(std::int64_t now_unix_ms) {
  if (auto made = make_directories(directory_); !made) return made;
  day_ = utc_day(now_unix_ms);
  const std::string path = directory_ + "/" + day_ + ".json";
  const auto text = read_file(path, kFileBytesMax);
  if (!text) return text.error().code == ErrorCode::kNotFound ? Result<>{} : std::unexpected(text.error());
  auto rows = rows_from(*text);
  if (!rows) return fail(ErrorCode::kCorrupt, rows.error().message(), path);
  rows_ = std::move(*rows);
  return {};
}

void UsageBook::turn_day(std::int64_t now_unix_ms) {
  std::string day = utc_day(now_unix_ms);
  if (day == day_) return;
  if (auto written = flush(); !written) log_warn("usage.not_written", {{"reason", written.error().message()}});
  day_ = std::move(day);
  rows_.clear();
}

void UsageBook::add(const Key& key, const UsageCount& count, std::int64_t now_unix_ms) {
  turn_day(now_unix_ms);
  Key where = key;
  if (where.user.size() > kUserBytesMax) where.user.resize(kUserBytesMax);
  if (rows_.size() >= kUsageRowsMax && !rows_.contains(where)) where.user.clear();
  UsageCount& sum = rows_[where];
  sum.requests += count.requests;
  sum.prompt_tokens += count.prompt_tokens;
  sum.generated_tokens += count.generated_tokens;
  if (!changed_) something_.notify();
  changed_ = true;
}

std::string UsageBook::text() const {
  Json rows = Json::array();
  for (const auto& [key, count] : rows_) rows.push_back(row(day_, key, count));
  return dump_json(Json{{"rows", std::move(rows)}}) + "\n";
}

Result<> UsageBook::flush() {
  if (!changed_ || day_.empty()) return {};
  changed_ = false;
  return write_file_durably(directory_ + "/" + day_ + ".json", text());
}

net::Task<> UsageBook::run() {
  while (true) {
    if (!changed_) {
      co_await something_.wait();
      continue;
    }
    co_await net::sleep_for(kWritePeriod);
    if (!changed_) continue;
    changed_ = false;
    const std::string path = directory_ + "/" + day_ + ".json";
    const std::string content = text();
    Result<> written;
    std::function<void()> write = [&path, &content, &written] { written = write_file_durably(path, content); };
    co_await net::run_blocking(write);
    if (written) continue;
    // A full disk must not stop the service; what is in memory is written when there is room.
    log_warn("usage.not_written", {{"reason", written.error().message()}});
    changed_ = true;
  }
}

Json UsageBook::rows_of_day(const std::string& directory, const std::string& day, const std::string& only_key) {
  Json out = Json::array();
  const auto text = read_file(directory + "/" + day + ".json", kFileBytesMax);
  if (!text) return out;
  const auto rows = rows_from(*text);
  if (!rows) return out;
  for (const auto& [key, count] : *rows) {
    if (only_key.empty() || key.key_id == only_key) out.push_back(row(day, key, count));
  }
  return out;
}

Json UsageBook::rows_of_today(const std::string& only_key) const {
  Json out = Json::array();
  for (const auto& [key, count] : rows_) {
    if (only_key.empty() || key.key_id == only_key) out.push_back(row(day_, key, count));
  }
  return out;
}

}  // namespace aiv::gateway
