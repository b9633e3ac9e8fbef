#include "gateway/pipe.hpp"

#include <array>
#include <utility>

namespace aiv::gateway {
namespace {

constexpr std::array<std::string_view, 5> kPassedHeaders{"content-type", "cache-control", "retry-after", "location", "etag"};

bool passes(std::string_view name) {
  for (const std::string_view passed : kPassedHeaders) {
    if (passed == name) return true;
  }
  return false;
}

}  // namespace

net::Task<PipeOutcome> pipe_exchange(net::ExchangePtr exchange, net::HttpClient& target, net::RequestHead head,
                                     PipeOptions options) {
  auto body = co_await exchange->read_body(options.body_bytes_max);
  if (!body) co_return PipeOutcome{.status = 0, .error = body.error()};
  auto opened = co_await target.open(std::move(head), std::move(*body));
  if (!opened) co_return PipeOutcome{.status = 0, .error = opened.error()};
  const net::ClientExchangePtr upstream = *opened;
  exchange->on_gone([upstream] { upstream->cancel(); });
  const auto answer = co_await upstream->head(net::Clock::now() + options.head_time_max);
  if (!answer) {
    exchange->on_gone(nullptr);
    co_return PipeOutcome{.status = 0, .error = answer.error()};
  }
  net::ResponseHead out{answer->status, std::move(options.add_to_answer)};
  for (const net::Header& header : answer->headers) {
    if (passes(header.name)) out.headers.push_back(header);
  }
  PipeOutcome outcome{.status = answer->status, .error = {}};
  Result<> sent = co_await exchange->start(std::move(out));
  std::string chunk;
  bool head_alone = true;
  while (sent) {
    // An endless body may be silent for long: let its head leave at once.
    if (options.idle_forever && head_alone) sent = co_await exchange->write("");
    head_alone = false;
    if (!sent) break;
    chunk.clear();
    const auto deadline =
        options.idle_forever ? net::Clock::time_point::max() : net::Clock::now() + options.head_time_max;
    const Result<bool> more = co_await upstream->read_some(chunk, deadline);
    if (!more) {
      outcome.error = more.error();
      exchange->abort();
      co_return outcome;
    }
    if (!*more) {
      sent = co_await exchange->finish(upstream->trailers());
      outcome.complete = sent.has_value();
      co_return outcome;
    }
    sent = co_await exchange->write(chunk);
  }
  exchange->on_gone(nullptr);
  outcome.error = sent ? Error{} : sent.error();
  co_return outcome;
}

}  // namespace aiv::gateway
