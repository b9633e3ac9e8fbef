// The agent's end of the socket to one engine's shim (node/shim.hpp says what travels on it).
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "net/stream.hpp"

namespace aiv::node {

class ShimLink {
 public:
  // Tries until `deadline`: the socket appears a moment after the shim was started.
  static net::Task<Result<std::shared_ptr<ShimLink>>> connect(std::string socket_path,
                                                              net::Clock::time_point deadline);
  explicit ShimLink(net::StreamPtr stream) : stream_(std::move(stream)) {}
  // nullopt once the shim has closed.
  net::Task<std::optional<std::string>> read_line();
  net::Task<Result<>> send(std::string command);
  void close() { stream_->close(); }

 private:
  net::StreamPtr stream_;
  std::string pending_;
  std::size_t at_ = 0;  // start of what was not handed out yet
};
using ShimLinkPtr = std::shared_ptr<ShimLink>;

}  // namespace aiv::node
