// The load of a fake model: the lines that llama-server 0.5.0 writes at -lv 4 (its wording and column widths
// were taken from its own output on one and on two Vulkan devices), the progress lines of the child protocol,
// and the faults at load. Driven by the event loop; it never blocks.
#pragma once
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "options.hpp"

namespace aiv::fake {

// llama-server's log: to stderr and to --log-file, each line with the time since the start.
class EngineLog {
 public:
  // An empty path writes to stderr only. kIo when the file cannot be opened.
  static Result<EngineLog> open(const std::string& path, int verbosity);
  void info(std::string_view text) { write('I', text, 4); }  // hidden below -lv 4, as libllama's lines are
  void server(std::string_view text) { write('I', text, 3); }
  void error(std::string_view text) { write('E', text, 1); }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void write(char level, std::string_view text, int needed);
  std::unique_ptr<std::FILE, Close> file_;
  int verbosity_ = 3;
  std::int64_t start_ns_ = 0;
};

std::int64_t monotonic_ns();

// Writes one line of the child protocol to stdout, with the empty line before it that llama-server writes
// too.
void tell_router(const std::string& state, const std::string& payload_json);

class Load {
 public:
  Load(const Options& options, EngineLog& log) : options_(options), log_(log) {}
  void begin(std::int64_t now_ns);
  // Goes on as far as the time allows. Nothing more to do: `done`. An exit status: the process must leave
  // with it.
  struct Outcome {
    bool done = false;
    std::optional<int> exit_status;
    std::int64_t next_ns = 0;  // when to come back, while neither is set
  };
  Outcome step(std::int64_t now_ns);

 private:
  void log_devices();
  void log_tensors();
  std::optional<int> log_context();
  void log_buffer(const char* function, const std::string& device, const char* what, Bytes bytes);
  std::optional<int> fail_to_allocate(const std::string& what, Bytes bytes, const std::string& consequence);
  void report_progress(double value);

  const Options& options_;
  EngineLog& log_;
  std::int64_t start_ns_ = 0;
  int stage_ = 0;
};

}  // namespace aiv::fake
