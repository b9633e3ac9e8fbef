// Passing one exchange on to another HTTP peer as it is: the controller's API, and the controller's requests to nodes.
#pragma once
#include "net/http.hpp"

namespace aiv::gateway {

struct PipeOptions {
  std::size_t body_bytes_max = std::size_t{4} << 20;
  net::Clock::duration head_time_max = net::seconds(60);
  bool idle_forever = false;  // endless bodies: no limit between bytes
  net::Headers add_to_answer{};
};

struct PipeOutcome {
  int status = 0;     // 0: nothing was sent to the asking side, which the caller must answer
  Error error{};      // why, then
  bool complete = false;
};

// Reads the body of `exchange`, sends `head` with it to `target`, and passes status, body and trailers back. Of the
// answer's headers only content-type, cache-control, retry-after, location and etag go through. When the asking side
// leaves, the request is cancelled; when the target breaks off, the asking side is cut so that it cannot take what it has for the whole.
net::Task<PipeOutcome> pipe_exchange(net::ExchangePtr exchange, net::HttpClient& target, net::RequestHead head,
                                     PipeOptions options);

}  // namespace aiv::gateway
