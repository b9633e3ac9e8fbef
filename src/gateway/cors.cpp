#include "gateway/cors.hpp"

#include <algorithm>
#include <charconv>

#include "base/units.hpp"

namespace aiv::gateway {
namespace {

constexpr std::size_t kAskedHeadersMax = 4096;
constexpr std::string_view kMethods = "GET, HEAD, POST, OPTIONS";
// What our answers carry besides what browsers show anyway.
constexpr std::string_view kExposed =
    "x-request-id, x-client-request-id, request-id, retry-after, retry-after-ms, x-should-retry, "
    "x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-tokens";

// An origin as browsers write it (RFC 6454 6.2): scheme, host in lower case, a port that is not the scheme's
// own.
bool is_origin(std::string_view text) {
  std::string_view own_port = "80";
  if (text.starts_with("https://")) own_port = "443";
  if (!text.starts_with("https://") && !text.starts_with("http://")) return false;
  std::string_view host = text.substr(text.find("//") + 2);
  const std::size_t colon = host.ends_with(']') ? std::string_view::npos : host.rfind(':');
  if (colon != std::string_view::npos) {
    const std::string_view port = host.substr(colon + 1);
    host = host.substr(0, colon);
    int number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc{} || end != port.data() + port.size() || number < 1 || number > 65535 ||
        port == own_port)
      return false;
  }
  if (host.starts_with('['))
    return host.ends_with(']') && host.find_first_not_of("[]0123456789abcdef:.") == std::string_view::npos;
  return !host.empty() &&
         host.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-") == std::string_view::npos;
}

// Names of fields separated by commas, which we may repeat.
bool is_field_list(std::string_view text) {
  return text.size() <= kAskedHeadersMax &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, ") ==
             std::string_view::npos;
}

bool for_clients(std::string_view path) {
  return path.starts_with("/v1/") || path.starts_with("/api/") || path == "/health";
}

}  // namespace

Result<Cors> Cors::make(std::vector<std::string> origins, bool auth) {
  Cors out;
  for (const std::string& origin : origins) {
    if (origin == "*") {
      if (origins.size() > 1)
        return fail(ErrorCode::kInvalidArgument, "'*' stands alone: it allows every page", "--cors-origin");
      if (!auth) {
        return fail(ErrorCode::kRefused,
                    "without authentication '*' would let every web page use the models; name the origins",
                    "--cors-origin");
      }
      out.any_ = true;
    } else if (!is_origin(origin)) {
      return fail(
          ErrorCode::kInvalidArgument,
          "'" + printable(origin, 120) +
              "' is no origin; write it as a browser does: https://chat.example.org or "
              "http://localhost:3000, in lower case, without a path and without the scheme's own port",
          "--cors-origin");
    }
  }
  out.origins_ = std::move(origins);
  return out;
}

bool Cors::allows(const net::RequestHead& head) const {
  if (origins_.empty() || !for_clients(head.path)) return false;
  const std::string* origin = net::find_header(head.headers, "origin");
  if (origin == nullptr) return false;
  return any_ || std::find(origins_.begin(), origins_.end(), *origin) != origins_.end();
}

void Cors::add_headers(const net::RequestHead& head, net::Headers& out) const {
  out.push_back({"access-control-allow-origin", any_ ? "*" : net::header_or(head.headers, "origin", "")});
  out.push_back({"access-control-expose-headers", std::string(kExposed)});
  if (!any_) out.push_back({"vary", "origin"});
}

std::optional<net::ResponseHead> Cors::preflight(const net::RequestHead& head) {
  if (head.method != "OPTIONS" || net::find_header(head.headers, "access-control-request-method") == nullptr)
    return std::nullopt;
  net::ResponseHead out{
      204, {{"access-control-allow-methods", std::string(kMethods)}, {"access-control-max-age", "600"}}};
  const std::string* asked = net::find_header(head.headers, "access-control-request-headers");
  // Repeated, because "*" would not stand for Authorization.
  if (asked != nullptr && is_field_list(*asked))
    out.headers.push_back({"access-control-allow-headers", *asked});
  return out;
}

}  // namespace aiv::gateway
