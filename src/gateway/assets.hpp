// The web page, embedded in the binary: every file that Vite built, as it is and gzipped (cmake/EmbedAssets.cmake),
// and what to answer when a browser asks for one of them. Pure lookups over constant memory: no I/O, no allocation
// but the few header strings, safe from any thread.
//
// Rules:
// - Only GET and HEAD of paths that no API family claims come here; the caller routes /v1, /api, /aiv, /health,
//   /metrics first, so that a mistyped API path is a JSON 404 and never a page with status 200.
// - The pages of the application (kPagePaths, the routes of web/src/App.svelte) get index.html. Everything else is a 404:
//   a program that asks for an engine's own route (/slots, /props) must not take a page with status 200 for an answer, and
//   a browser that asks for an old script must not be fed HTML. Only who asks for a page in words (`accept: text/html`, a
//   person who mistyped an address) gets the application with that 404, which says so and shows the way.
// - Files under assets/ carry a content hash in their name and may be kept for ever; everything else is revalidated
//   by its ETag, so a new binary is seen at the next load.
#pragma once
#include <array>
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

// Of the application's own pages, as its router knows them; a '/' at the end makes no difference.
inline constexpr std::array<std::string_view, 3> kPagePaths{"/", "/cluster", "/deployments"};

// The file to answer `path` with (absolute, decoded, without query), by the rules above; nullptr = 404.
const Asset* find_asset(std::string_view path);

// Sent with every page and file. Scripts come from this origin only; answers of a model can load nothing from
// elsewhere, not even an image (it would carry the chat away in its address).
inline constexpr std::string_view kContentSecurityPolicy =
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

struct AssetReply {
  net::ResponseHead head;  // 200; 304 when the browser has it already; 404 with the page for who mistyped its address
  std::string_view body;   // empty with 304; constant memory, outlives everything
};

// What a request says beside its path: values of the headers of these names, empty when absent.
struct AssetWishes {
  std::string_view accept_encoding{};
  std::string_view if_none_match{};
  std::string_view accept{};
};

// Status, headers and body for one request; std::nullopt = 404, in the caller's form. For HEAD the caller leaves the
// body out.
std::optional<AssetReply> answer_asset(std::string_view path, const AssetWishes& wishes);

}  // namespace aiv::gateway
