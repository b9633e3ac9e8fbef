#include "node/shim_link.hpp"

namespace aiv::node {
namespace {

constexpr std::size_t kPendingBytesMax = 1024 * 1024;  // a shim's line has 64 KiB at most
constexpr auto kRetry = net::milliseconds(10);

}  // namespace

net::Task<Result<ShimLinkPtr>> ShimLink::connect(std::string socket_path, net::Clock::time_point deadline) {
  while (true) {
    auto stream = co_await net::dial("unix:" + socket_path, nullptr, net::seconds(2));
    if (stream) co_return std::make_shared<ShimLink>(std::move(*stream));
    if (net::Clock::now() >= deadline) co_return std::unexpected(stream.error());
    co_await net::sleep_for(kRetry);
  }
}

net::Task<std::optional<std::string>> ShimLink::read_line() {
  while (true) {
    const std::size_t end = pending_.find('\n', at_);
    if (end != std::string::npos) {
      std::string line = pending_.substr(at_, end - at_);
      at_ = end + 1;
      co_return line;
    }
    pending_.erase(0, at_);
    at_ = 0;
    if (pending_.size() > kPendingBytesMax) co_return std::nullopt;
    const auto more = co_await stream_->read_more(pending_);
    if (!more || !*more) co_return std::nullopt;
  }
}

net::Task<Result<>> ShimLink::send(std::string command) {
  command += '\n';
  co_return co_await stream_->write_all(command);
}

}  // namespace aiv::node
