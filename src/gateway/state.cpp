#include "gateway/state.hpp"

namespace aiv::gateway {

GatewayState::GatewayState(net::Executor loop, GatewayOptions settings)
    : executor(loop),
      options(std::move(settings)),
      routes(loop, options.data_dir + "/gateway/routes.json"),
      links(loop, options.cluster),
      dispatcher(
          loop, [this](const std::string& node) { return links.up(node); },
          [this](const std::string& node) { return links.has_room(node); }),
      controller(loop, "unix:" + options.data_dir + "/run/controller.sock"),
      access_log(loop, options.access_log ? options.data_dir + "/logs/access.log" : std::string()),
      usage(loop, options.data_dir + "/gateway/usage") {
  links.on_change([this](const std::string&, bool) { dispatcher.pump_all(); });
}

std::string GatewayState::next_request_id() {
  // splitmix64 (Steele, Lea, Flood 2014) over a counter: a bijection, so no number comes twice.
  std::uint64_t z = request_seed + ++request_count * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  z ^= z >> 31;
  std::string id = "req-0000000000000000";
  for (std::size_t at = id.size(); z != 0; z >>= 4) id[--at] = "0123456789abcdef"[z & 15];
  return id;
}

}  // namespace aiv::gateway
