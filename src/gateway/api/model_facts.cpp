#include "gateway/api/model_facts.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.hpp"
#include "gateway/api/translated.hpp"

namespace aiv::gateway {
namespace {

constexpr std::size_t kListBytesMax = std::size_t{16} << 20;
constexpr net::seconds kListWait{2};
constexpr std::string_view kDigestPrefix = "sha256:";

std::int64_t count_in(const Json& object, const char* key) {
  const Json& value = field(object, key);
  return value.is_number_integer() ? std::max<std::int64_t>(value.get<std::int64_t>(), 0) : 0;
}

Json items_of(std::string_view json) {
  const auto list = parse_json(json);
  if (!list || !list->is_object() || !list->contains("items") || !(*list)["items"].is_array())
    return Json::array();
  return (*list)["items"];
}

net::Task<std::string> list_of(net::HttpClient& controller, std::string path) {
  const auto deadline = net::Clock::now() + kListWait;
  net::RequestHead head{.method = "GET", .path = std::move(path), .query = {}, .headers = {}};
  head.headers.push_back({"x-aiv-actor", "gateway"});
  head.headers.push_back({"x-aiv-role", "operator"});
  auto opened = co_await controller.open(std::move(head), std::string());
  if (!opened) co_return std::string();
  const net::ClientExchangePtr exchange = *opened;
  const auto answer = co_await exchange->head(deadline);
  if (!answer || answer->status != 200) co_return std::string();
  auto body = co_await exchange->read_body(kListBytesMax, deadline);
  if (!body) co_return std::string();
  co_return std::move(*body);
}

}  // namespace

FactsByModel read_model_facts(std::string_view json) {
  FactsByModel out;
  for (const Json& item : items_of(json)) {
    if (!item.is_object()) continue;
    std::string digest = text_of(item, "digest");
    if (digest.starts_with(kDigestPrefix)) digest.erase(0, kDigestPrefix.size());
    out[text_of(item, "id")] = {.size_bytes = count_in(item, "size_bytes"),
                                .digest = std::move(digest),
                                .architecture = text_of(item, "architecture"),
                                .quantisation = text_of(item, "quantisation"),
                                .parameters = count_in(item, "parameters")};
  }
  return out;
}

VramByDeployment read_replica_bytes(std::string_view json) {
  VramByDeployment out;
  for (const Json& item : items_of(json)) {
    if (!item.is_object() || !item.contains("devices") || !item["devices"].is_array()) continue;
    std::int64_t bytes = 0;
    for (const Json& device : item["devices"]) {
      if (device.is_object()) bytes += count_in(device, "bytes");
    }
    std::int64_t& most = out[text_of(item, "deployment")];
    most = std::max(most, bytes);
  }
  return out;
}

std::string parameter_size(std::int64_t parameters) {
  const auto shortened = [](double number, int digits, char unit) {
    if (number == static_cast<double>(static_cast<std::int64_t>(number))) digits = 0;
    return fmt::format("{:.{}f}{}", number, digits, unit);
  };
  const auto number = static_cast<double>(parameters);
  if (parameters <= 0) return {};
  if (number >= 1e9) return shortened(number / 1e9, 1, 'B');
  if (number >= 1e6) return shortened(number / 1e6, 2, 'M');
  if (number >= 1e3) return shortened(number / 1e3, 0, 'K');
  return std::to_string(parameters);
}

net::Task<std::shared_ptr<const ModelBook::Page>> ModelBook::read(net::HttpClient& controller) {
  const auto now = net::Clock::now();
  if (asked_ != net::Clock::time_point{} && now - asked_ < kAge) co_return page_;
  asked_ = now;
  std::string path = "/aiv/v1/models";
  const std::string models = co_await list_of(controller, std::move(path));
  path = "/aiv/v1/replicas";
  const std::string replicas = co_await list_of(controller, std::move(path));
  if (models.empty()) co_return page_;  // away: what it said last
  auto page = std::make_shared<Page>();
  page->facts = read_model_facts(models);
  page->vram = read_replica_bytes(replicas);
  page_ = std::move(page);
  co_return page_;
}

}  // namespace aiv::gateway
