// The web page, embedded in the binary: every file that Vite built, as it is and gzipped (cmake/EmbedAssets.cmake),
// and what to answer when a browser asks for one of them. Pure lookups over constant memory: no I/O, no allocation
// but the few header strings, safe from any thread.
//
// Rules:
// - Only GET and HEAD of paths that no API family claims come here; the caller routes /v1, /api, /aiv, /health,
//   /metrics first, so that a mistyped API path is a JSON 404 and never a page with status 200.
// - A path whose last segment has no dot is a page of the application ("/cluster"): it gets index.html. One with a
//   dot that is not there is a 404, because a browser that asks for an old script must not be fed HTML.
// - Files under assets/ carry a content hash in their name and may be kept for ever; everything else is revalidated
//   by its ETag, so a new binary is seen at the next load.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "net/http.hpp"

namespace aiv::gateway {

struct Asset {
  std::string_view path;          // "/index.html"
  std::string_view bytes;         // the file
  std::string_view gzip;          // the file gzipped; empty where that would not be smaller
  std::string_view content_type;  // with charset where it is text
  std::string_view etag;          // weak (both codings share it): a hash of `bytes`
  bool immutable = false;         // the name carries a hash of the content
};

// Every embedded file, in order of path. Never empty: without a built page it is one page that says how to build it.
std::span<const Asset> all_assets();

// The file to answer `path` with (absolute, decoded, without query), by the rules above; nullptr = 404.
const Asset* find_asset(std::string_view path);

// Sent with every page and file. Scripts come from this origin only; answers of a model can load nothing from
// elsewhere, not even an image (it would carry the chat away in its address).
inline constexpr std::string_view kContentSecurityPolicy =
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

struct AssetReply {
  net::ResponseHead head;  // 200, or 304 when the browser has it already
  std::string_view body;   // empty with 304; constant memory, outlives everything
};

// Status, headers and body for one request; std::nullopt = 404, in the caller's form. `accept_encoding` and
// `if_none_match` are the request's header values, empty when absent. For HEAD the caller leaves the body out.
std::optional<AssetReply> answer_asset(std::string_view path, std::string_view accept_encoding,
                                       std::string_view if_none_match);

}  // namespace aiv::gateway
