// The command line's way to a server: which one, with which key, and blocking calls to its API.
#pragma once
#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <string>

#include "base/exit_code.hpp"
#include "base/json.hpp"
#include "net/stream.hpp"

namespace aiv::cli {

// How often a verb that waits asks again.
inline constexpr std::chrono::milliseconds kPollPeriod{150};

// Options that every verb talking to a server takes.
struct ServerOptions {
  std::string server;    // --server URL
  std::string key_file;  // --key-file
  bool json = false;     // --json
  std::string ca_file;   // --ca
};
void add_server_options(CLI::App& verb, ServerOptions& options);

struct Answer {
  int status = 0;
  Json body;
};

class ApiClient {
 public:
  // --server > AIV_SERVER > the user's config > a running `aiv dev` > http://127.0.0.1:8080.
  // Authority of an https server: --ca > AIV_CA > config > the system's.
  // Key: --key-file > AIV_KEY > config > the running `aiv dev`'s own (only for its address).
  static Result<ApiClient> connect(const ServerOptions& options);

  // kUnavailable (exit 6) names the address when nobody listens there (5 s); other errors carry the server's own
  // words: kUnauthorized, kNotFound, kRefused, kInvalidArgument by status.
  Result<Json> call(const std::string& method, const std::string& path, const Json& body = nullptr) const;
  // As call(), but every status is an answer.
  Result<Answer> exchange(const std::string& method, const std::string& path, const Json& body = nullptr) const;
  // Streams server-sent events: `on_event(data)` for each data field; returns when the stream ends or the callback
  // says false. A stream that breaks off is an error.
  Result<> stream(const std::string& method, const std::string& path, const Json& body,
                  std::function<bool(const std::string& data)> on_event) const;
  [[nodiscard]] const std::string& url() const { return url_; }
  [[nodiscard]] const std::string& key() const { return key_; }

 private:
  std::string url_;
  std::string address_;  // tcp:HOST:PORT
  net::TlsContextPtr tls_;  // of https
  std::string key_;
};

// "aiv: REASON" and, if there is one, "  try: STEP" on stderr; returns the exit code of the error's kind.
int report(const Error& error, const std::string& next_step = {});
// The same of what was asked in a wrong way; returns ExitCode::kUsage.
int report_usage(const Error& error, const std::string& next_step = {});
// Prints to stdout, ignoring a broken pipe.
void print(const std::string& text);

// Where `aiv dev` says which cluster runs: {"url","data","pid","start_time"}.
std::string dev_record_path();

// The key of a text in which it stands alone, with blanks or a line's end around it.
std::string key_in(std::string text);

}  // namespace aiv::cli
