// Which web pages of other origins may use the API from a browser (the Fetch standard's CORS protocol). Off
// unless set.
//
// RULES
// - Only the clients' APIs (/v1, /api, /health): a page of elsewhere has no business at /aiv/v1 or the web
// page.
// - Credentials are never allowed: a key is sent by the page's own code, never by the browser on its own.
// - "*" stands alone, and not without authentication: any page would then reach the models through a
// visitor's browser.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "net/http.hpp"

namespace aiv::gateway {

class Cors {
 public:
  Cors() = default;
  // `origins`: "https://host[:port]" each, or "*" alone.
  static Result<Cors> make(std::vector<std::string> origins, bool auth);

  // Whether `head` comes from a page of another origin that may ask for this path.
  [[nodiscard]] bool allows(const net::RequestHead& head) const;
  // What every answer to an allowed request says.
  void add_headers(const net::RequestHead& head, net::Headers& out) const;
  // The answer to the question that a browser asks first; nullopt if this is none.
  [[nodiscard]] static std::optional<net::ResponseHead> preflight(const net::RequestHead& head);

 private:
  std::vector<std::string> origins_;
  bool any_ = false;
};

}  // namespace aiv::gateway
