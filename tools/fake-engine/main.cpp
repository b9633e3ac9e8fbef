// aiv-fake-engine: plays llama-server for tests of scale and of faults (README.md beside this file).
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "server.hpp"

namespace {

int print_devices() {
  // The agent keeps the books of fake devices; the program itself has none.
  std::puts("Available devices:");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace aiv;
  using namespace aiv::fake;
  auto line = parse_command_line({argv + 1, argv + argc});
  if (!line) {
    std::fprintf(stderr, "error: %s\n", line.error().message().c_str());
    return 1;
  }
  switch (line->verb) {
    case Verb::kVersion:
      std::printf("version: fake-%s (plays llama-server 0.5.0)\n", AIV_VERSION);
      return 0;
    case Verb::kListDevices:
      return print_devices();
    case Verb::kHelp:
      std::puts(
          "usage: aiv-fake-engine -m fake:NAME[?key=value&...] --host /path/of/socket [flags of "
          "llama-server]");
      return 0;
    case Verb::kServe:
      break;
  }
  signal(SIGPIPE, SIG_IGN);
  line->options.router_child = std::getenv("LLAMA_SERVER_ROUTER_PORT") != nullptr;
  if (const char* bandwidth = std::getenv(std::string(kFakeBandwidthVariable).c_str()))
    line->options.model = paced_by_card(std::move(line->options.model), std::atoll(bandwidth));
  auto log = EngineLog::open(line->options.log_file, line->options.verbosity);
  if (!log) {
    std::fprintf(stderr, "error: %s\n", log.error().message().c_str());
    return 1;
  }
  Server server(line->options, *log);
  if (auto listening = server.listen(); !listening) {
    log->error("srv  llama_server: couldn't bind HTTP server socket: " + listening.error().message());
    return 1;
  }
  return server.run();
}
