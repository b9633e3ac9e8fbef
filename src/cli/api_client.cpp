#include "cli/api_client.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <iostream>
#include <optional>

#include "base/file.hpp"
#include "base/host.hpp"
#include "base/units.hpp"
#include "net/http1.hpp"
#include "net/process.hpp"

namespace aiv::cli {
namespace {

constexpr std::size_t kAnswerMax = 64 * 1024 * 1024;
constexpr auto kConnectTime = net::seconds(5);
constexpr auto kAnswerTime = net::seconds(60);

std::string config_path() {
  const std::string base = environment("XDG_CONFIG_HOME");
  return (base.empty() ? environment("HOME") + "/.config" : base) + "/aiv/config.json";
}

struct DevRecord {
  std::string url;
  std::string data;
};

// The running `aiv dev`, if its process still lives.
std::optional<DevRecord> running_dev() {
  const Result<std::string> text = read_file(dev_record_path(), 65536);
  if (!text) return std::nullopt;
  const Result<Json> json = parse_json(*text);
  if (!json) return std::nullopt;
  JsonReader reader(*json, "");
  const DevRecord record{reader.string("url"), reader.string("data")};
  const auto pid = static_cast<pid_t>(reader.integer("pid", 1, 1 << 30));
  const std::int64_t start = reader.integer("start_time", 0, INT64_MAX);
  if (!reader.ok()) return std::nullopt;
  const auto now = net::process_start_time(pid);
  if (!now || *now != start) return std::nullopt;
  return record;
}

struct Place {
  std::string address;  // tcp:HOST:PORT
  std::string host;     // without brackets
  bool https = false;
};

Result<Place> place_of(const std::string& url) {
  Place out{.address = {}, .host = {}, .https = url.starts_with("https://")};
  const Error unreadable{ErrorCode::kInvalidArgument,
                         "a server is written http://HOST:PORT or https://HOST:PORT", url};
  if (!out.https && !url.starts_with("http://")) return std::unexpected(unreadable);
  std::string rest = url.substr(out.https ? 8 : 7);
  rest = rest.substr(0, rest.find('/'));
  if (rest.empty()) return std::unexpected(unreadable);
  const std::size_t colon = rest.ends_with(']') ? std::string::npos : rest.rfind(':');
  out.host = rest.substr(0, colon);
  if (out.host.starts_with('[') && out.host.ends_with(']'))
    out.host = out.host.substr(1, out.host.size() - 2);
  if (out.host.empty()) return std::unexpected(unreadable);
  out.address = "tcp:" + rest + (colon != std::string::npos ? "" : out.https ? ":443" : ":80");
  return out;
}

// The server's error document as an Error: {"error":{"message","code","try"}} or OpenAI's form.
Error error_of(int status, const Json& body) {
  Error out;
  switch (status) {
    case 401:
    case 403: out.code = ErrorCode::kUnauthorized; break;
    case 404: out.code = ErrorCode::kNotFound; break;
    case 409: out.code = ErrorCode::kConflict; break;
    case 422: out.code = ErrorCode::kRefused; break;
    case 504: out.code = ErrorCode::kTimeout; break;
    default: out.code = status < 500 ? ErrorCode::kInvalidArgument : ErrorCode::kInternal;
  }
  out.reason = fmt::format("the server answered {}", status);
  if (body.is_object() && body.contains("error") && body["error"].is_object()) {
    const Json& error = body["error"];
    if (error.contains("message") && error["message"].is_string()) out.reason = error["message"].get<std::string>();
    if (error.contains("try") && error["try"].is_string() && !error["try"].get_ref<const std::string&>().empty()) {
      out.reason += "\n  try: " + error["try"].get<std::string>();
    }
  }
  return out;
}

net::RequestHead head_of(const std::string& method, const std::string& path, const std::string& key, bool has_body) {
  net::RequestHead head;
  head.method = method;
  const auto mark = path.find('?');
  head.path = path.substr(0, mark);
  if (mark != std::string::npos) head.query = path.substr(mark + 1);
  if (!key.empty()) head.headers.push_back({"authorization", "Bearer " + key});
  if (has_body) head.headers.push_back({"content-type", "application/json"});
  head.headers.push_back({"user-agent", "aiv/" AIV_VERSION});
  return head;
}

net::Task<> fetch(std::string address, net::TlsContextPtr tls, net::RequestHead head, std::string body,
                  Result<Answer>* out) {
  const auto client = net::make_http1_client(address, false, kConnectTime, tls);
  const auto deadline = net::Clock::now() + kAnswerTime;
  auto exchange = co_await client->open(std::move(head), std::move(body));
  if (!exchange) {
    *out = std::unexpected(exchange.error());
    co_return;
  }
  const auto answered = co_await (*exchange)->head(deadline);
  if (!answered) {
    *out = std::unexpected(answered.error());
    co_return;
  }
  const auto text = co_await (*exchange)->read_body(kAnswerMax, deadline);
  if (!text) {
    *out = std::unexpected(text.error());
    co_return;
  }
  Answer answer{answered->status, Json()};
  if (!text->empty()) {
    if (auto json = parse_json(*text)) {
      answer.body = std::move(*json);
    } else {
      answer.body = *text;
    }
  }
  *out = std::move(answer);
}

// Splits server-sent events; only `data:` lines matter here.
class EventReader {
 public:
  template <class OnData>
  bool feed(const std::string& bytes, OnData&& on_data) {
    pending_ += bytes;
    for (;;) {
      const auto end = pending_.find('\n');
      if (end == std::string::npos) return true;
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      if (line.ends_with('\r')) line.pop_back();
      if (!line.starts_with("data:")) continue;
      line.erase(0, line.starts_with("data: ") ? 6 : 5);
      if (!on_data(line)) return false;
    }
  }

 private:
  std::string pending_;
};

net::Task<> stream_events(std::string address, net::TlsContextPtr tls, net::RequestHead head,
                          std::string body, std::function<bool(const std::string&)> on_event, Result<>* out) {
  const auto client = net::make_http1_client(address, false, kConnectTime, tls);
  auto exchange = co_await client->open(std::move(head), std::move(body));
  if (!exchange) {
    *out = std::unexpected(exchange.error());
    co_return;
  }
  const auto never = net::Clock::now() + std::chrono::hours(24);
  const auto answered = co_await (*exchange)->head(never);
  if (!answered) {
    *out = std::unexpected(answered.error());
    co_return;
  }
  if (answered->status != 200) {
    const auto text = co_await (*exchange)->read_body(kAnswerMax, never);
    *out = std::unexpected(error_of(answered->status, text ? parse_json(*text).value_or(Json()) : Json()));
    co_return;
  }
  EventReader reader;
  for (;;) {
    std::string bytes;
    const auto more = co_await (*exchange)->read_some(bytes, never);
    if (!more) {
      *out = std::unexpected(more.error());
      co_return;
    }
    if (!reader.feed(bytes, on_event) || !*more) co_return;
  }
}

}  // namespace

std::string key_in(std::string text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  text.erase(0, text.find_first_not_of(" \t\r\n"));
  return text;
}

std::string dev_record_path() {
  const std::string base = environment("XDG_STATE_HOME");
  return (base.empty() ? environment("HOME") + "/.local/state" : base) + "/aiv/dev.json";
}

void add_server_options(CLI::App& verb, ServerOptions& options) {
  verb.add_option(
          "--server", options.server,
          "Server, http://HOST:PORT or https://HOST:PORT (default: AIV_SERVER, config, a running aiv dev)")
      ->type_name("URL");
  verb.add_option("--key-file", options.key_file, "File that holds the API key (default: AIV_KEY, config)")
      ->type_name("FILE");
  verb.add_option("--ca", options.ca_file,
                  "Authority (PEM) that signed the certificate of an https server (default: AIV_CA, config, "
                  "the system's)")
      ->type_name("FILE");
  verb.add_flag("--json", options.json, "Print JSON: sizes in bytes, times RFC 3339");
}

Result<ApiClient> ApiClient::connect(const ServerOptions& options) {
  ApiClient out;
  Json config = Json::object();
  if (const auto text = read_file(config_path(), 1 << 20)) {
    const auto json = parse_json(*text);
    if (!json) return fail(ErrorCode::kInvalidArgument, json.error().message(), config_path());
    JsonReader reader(*json, "");
    reader.string_or("server", "");
    reader.string_or("key_file", "");
    reader.string_or("ca", "");
    reader.refuse_unknown();
    if (!reader.ok()) return fail(ErrorCode::kInvalidArgument, reader.error().message(), config_path());
    config = *json;
  }
  const std::optional<DevRecord> dev = running_dev();
  out.url_ = options.server;
  if (out.url_.empty()) out.url_ = environment("AIV_SERVER");
  if (out.url_.empty()) out.url_ = config.value("server", "");
  if (out.url_.empty() && dev) out.url_ = dev->url;
  if (out.url_.empty()) out.url_ = "http://127.0.0.1:8080";
  const auto place = place_of(out.url_);
  if (!place) return std::unexpected(place.error());
  out.address_ = place->address;
  if (place->https) {
    std::string authority = options.ca_file.empty() ? environment("AIV_CA") : options.ca_file;
    if (authority.empty()) authority = config.value("ca", "");
    auto tls = net::TlsContext::make_https(place->host, authority);
    if (!tls) return std::unexpected(tls.error());
    out.tls_ = std::move(*tls);
  }

  std::string key_file = options.key_file;
  if (key_file.empty() && environment("AIV_KEY").empty()) {
    key_file = config.value("key_file", "");
    if (key_file.empty() && dev && dev->url == out.url_) key_file = dev->data + "/admin.key";
  }
  if (!key_file.empty()) {
    const auto key = read_file(key_file, 4096);
    // A running `aiv dev --no-auth` has no key file; a named file must be there.
    if (key) {
      out.key_ = key_in(*key);
    } else if (!options.key_file.empty()) {
      return std::unexpected(key.error());
    }
  } else {
    out.key_ = key_in(environment("AIV_KEY"));
  }
  return out;
}

Result<Answer> ApiClient::exchange(const std::string& method, const std::string& path, const Json& body) const {
  boost::asio::io_context context(1);
  Result<Answer> out = fail(ErrorCode::kInternal, "no answer");
  net::spawn(context.get_executor(),
             fetch(address_, tls_, head_of(method, path, key_, !body.is_null()),
                   body.is_null() ? "" : dump_json(body), &out),
             "api");
  context.run();
  if (!out && out.error().code == ErrorCode::kUnavailable) {
    return fail(ErrorCode::kUnavailable, fmt::format("no server answers at {} ({})", url_, out.error().reason));
  }
  if (!out && out.error().code == ErrorCode::kTimeout) {
    return fail(ErrorCode::kUnavailable, fmt::format("no server answers at {} in time", url_));
  }
  return out;
}

Result<Json> ApiClient::call(const std::string& method, const std::string& path, const Json& body) const {
  Result<Answer> answer = exchange(method, path, body);
  if (!answer) return std::unexpected(answer.error());
  if (answer->status >= 300) return std::unexpected(error_of(answer->status, answer->body));
  return std::move(answer->body);
}

Result<> ApiClient::stream(const std::string& method, const std::string& path, const Json& body,
                           std::function<bool(const std::string&)> on_event) const {
  boost::asio::io_context context(1);
  Result<> out;
  net::spawn(context.get_executor(),
             stream_events(address_, tls_, head_of(method, path, key_, !body.is_null()),
                           body.is_null() ? "" : dump_json(body), std::move(on_event), &out),
             "api");
  context.run();
  return out;
}

int report(const Error& error, const std::string& next_step) {
  std::string text = "aiv: " + error.message() + "\n";
  if (!next_step.empty()) text += "  try: " + next_step + "\n";
  std::cerr << text;
  return static_cast<int>(exit_code_of(error.code));
}

int report_usage(const Error& error, const std::string& next_step) {
  report(error, next_step);
  return static_cast<int>(ExitCode::kUsage);
}

void print(const std::string& text) { std::cout << text << std::flush; }

}  // namespace aiv::cli
