#include "gateway/assets.hpp"

#include <algorithm>
#include <cctype>

#include "base/units.hpp"

namespace aiv::gateway {
namespace {

const Asset* exact(std::string_view path) {
  const auto assets = all_assets();
  const auto at = std::ranges::lower_bound(assets, path, {}, &Asset::path);
  return at != assets.end() && at->path == path ? &*at : nullptr;
}

// The next element of a comma-separated header value, taken off its front.
std::string_view next_element(std::string_view& list) {
  const auto comma = list.find(',');
  const auto element = trimmed(list.substr(0, comma));
  list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
  return element;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  });
}

// A weight of zero in any of its spellings ("q=0", "Q=0.000") means "not this one" (RFC 9110, section 12.4.2).
bool refused_by_weight(std::string_view parameters) {
  const auto equals = parameters.find('=');
  if (equals == std::string_view::npos || !equal_ignoring_case(trimmed(parameters.substr(0, equals)), "q")) return false;
  const auto weight = trimmed(parameters.substr(equals + 1));
  return !weight.empty() && weight.find_first_not_of("0.") == std::string_view::npos;
}

// RFC 9110, section 12.5.3: a named coding wins over "*"; nothing said means the file as it is, which every client
// can read.
bool accepts_gzip(std::string_view accept_encoding) {
  bool any = false;
  while (!accept_encoding.empty()) {
    const auto element = next_element(accept_encoding);
    const auto semicolon = element.find(';');
    const auto coding = trimmed(element.substr(0, semicolon));
    const bool refused = semicolon != std::string_view::npos && refused_by_weight(element.substr(semicolon + 1));
    if (equal_ignoring_case(coding, "gzip") || equal_ignoring_case(coding, "x-gzip")) return !refused;
    if (coding == "*") any = !refused;
  }
  return any;
}

// Browsers name it first when a person goes to an address; programs say "*/*" or "application/json".
bool asks_for_page(std::string_view accept) {
  while (!accept.empty()) {
    const auto element = next_element(accept);
    if (equal_ignoring_case(trimmed(element.substr(0, element.find(';'))), "text/html")) return true;
  }
  return false;
}

bool looks_like_file(std::string_view path) { return path.substr(path.rfind('/')).find('.') != std::string_view::npos; }

// If-None-Match compares weakly (RFC 9110, section 13.1.2).
bool matches(std::string_view if_none_match, std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  while (!if_none_match.empty()) {
    auto element = next_element(if_none_match);
    if (element == "*") return true;
    if (element.starts_with("W/")) element.remove_prefix(2);
    if (element == etag) return true;
  }
  return false;
}

}  // namespace

const Asset* find_asset(std::string_view path) {
  if (const Asset* asset = exact(path)) return asset;
  if (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const bool is_page = std::ranges::find(kPagePaths, path) != kPagePaths.end();
  return is_page ? exact("/index.html") : nullptr;
}

std::optional<AssetReply> answer_asset(std::string_view path, const AssetWishes& wishes) {
  const Asset* asset = find_asset(path);
  const bool mistyped = asset == nullptr && path.starts_with('/') && !looks_like_file(path) && asks_for_page(wishes.accept);
  if (mistyped) asset = exact("/index.html");
  if (asset == nullptr) return std::nullopt;

  AssetReply reply;
  auto& headers = reply.head.headers;
  if (mistyped) {
    reply.head.status = 404;
    headers.push_back({"cache-control", "no-store"});
  } else {
    headers.push_back({"etag", std::string(asset->etag)});
    headers.push_back({"cache-control", asset->immutable ? "public, max-age=31536000, immutable" : "no-cache"});
  }
  headers.push_back({"vary", "accept-encoding"});
  headers.push_back({"content-security-policy", std::string(kContentSecurityPolicy)});
  headers.push_back({"x-content-type-options", "nosniff"});
  headers.push_back({"referrer-policy", "no-referrer"});
  if (!mistyped && matches(wishes.if_none_match, asset->etag)) {
    reply.head.status = 304;
    return reply;
  }
  headers.push_back({"content-type", std::string(asset->content_type)});
  reply.body = asset->bytes;
  if (!asset->gzip.empty() && accepts_gzip(wishes.accept_encoding)) {
    reply.body = asset->gzip;
    headers.push_back({"content-encoding", "gzip"});
  }
  return reply;
}

}  // namespace aiv::gateway
