// Slots, pace and tokens of server.hpp.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "server.hpp"

namespace aiv::fake {
namespace {

constexpr std::int64_t kNsPerMs = 1'000'000;
// A peer that does not read stops its stream; llama-server's writing thread blocks likewise.
constexpr std::size_t kOutBytesMax = 256 * 1024;

std::int64_t to_ns(double ms) {
  return static_cast<std::int64_t>(ms * static_cast<double>(kNsPerMs));
}
double to_ms(std::int64_t ns) {
  return static_cast<double>(ns) / static_cast<double>(kNsPerMs);
}

}  // namespace

void Server::enqueue(Connection& c, std::unique_ptr<Generation> generation) {
  c.generation = std::move(generation);
  c.state = State::kQueued;
  c.task = next_task_++;
  line_.emplace_back(c.index, c.task);
  ++waiting_;
  give_slots();
}

void Server::give_slots() {
  while (!line_.empty() && !free_slots_.empty() && !stopping_) {
    const auto [index, task] = line_.front();
    line_.pop_front();
    auto& c = *connections_[index];
    if (c.fd < 0 || c.state != State::kQueued || c.task != task) continue;  // it left
    --waiting_;
    start(c);
  }
}

double Server::token_ms_now(const Generation& g) const {
  const double base = g.answer.control().token_ms.value_or(options_.model.token_ms);
  if (options_.model.batch >= 1) return base;
  const auto busy = static_cast<double>(slots_.size() - free_slots_.size());
  return base * std::pow(std::max(busy, 1.0), 1 - options_.model.batch);
}

void Server::start(Connection& c) {
  auto& g = *c.generation;
  c.state = State::kGenerating;
  c.slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[static_cast<std::size_t>(c.slot)] = &c;
  g.started_ns = monotonic_ns();
  const double prompt_ms = g.answer.control().first_ms.value_or(options_.model.first_ms) +
                           options_.model.prefill_ms * static_cast<double>(g.reply.style().prompt_tokens);
  g.first_ns = g.started_ns + to_ns(prompt_ms);
  g.due_ns = g.first_ns;
  if (g.due_ns <= monotonic_ns())
    on_due(c, monotonic_ns());
  else
    arm(c);
}

void Server::arm(Connection& c) {
  auto& g = *c.generation;
  if (g.due_ns == 0) g.due_ns = monotonic_ns();
  if (!stopping_) timers_.push({g.due_ns, c.index, c.serial, c.task});
}

Timings Server::timings_of(const Generation& g, std::int64_t now_ns) const {
  const auto sent = g.next - g.answer.start();
  return {.prompt_n = g.reply.style().prompt_tokens,
          .prompt_ms = to_ms(std::max<std::int64_t>(g.first_ns - g.started_ns, 1000)),
          .predicted_n = sent,
          .predicted_ms = to_ms(std::max<std::int64_t>(now_ns - g.first_ns, 1000))};
}

// Sends whatever is due by now in one write.
void Server::on_due(Connection& c, std::int64_t now_ns) {
  auto& g = *c.generation;
  while (g.next < g.end && g.due_ns <= now_ns) {
    if (apply_fault(c)) return;
    send_token(c, now_ns);
    g.due_ns += std::max<std::int64_t>(to_ns(token_ms_now(g)), 0);
  }
  if (g.next >= g.end) {
    if (apply_fault(c)) return;
    return end_generation(c, now_ns);
  }
  if (c.out.size() > kOutBytesMax) {
    g.due_ns = 0;  // armed again when the peer has read
    return flush(c);
  }
  arm(c);
  flush(c);
}

bool Server::apply_fault(Connection& c) {
  auto& g = *c.generation;
  const auto& control = g.answer.control();
  // A continuation begins behind the fault that broke the first attempt; it must not meet it again.
  if (g.answer.start() > 0) return false;
  const auto at = g.next;
  if (at == control.die_at) {
    flush(c);
    _exit(options_.model.exit_code);
  }
  if (at == control.stall_at) {
    c.state = State::kStalled;
    flush(c);
    return true;
  }
  if (at == control.eof_at) {
    flush(c);
    if (c.fd >= 0) close_connection(c);
    return true;
  }
  if (at == control.error_at) {
    const auto error = error_json(500, "server_error", "Compute error.");
    if (g.head_sent) {
      Reply::append_error(c.out, error);
      c.out += kLastChunk;
    } else {
      c.request.keep_alive = false;
      c.out += http_response(500, "application/json; charset=utf-8", R"({"error":)" + error + "}", false);
    }
    release(c);
    finish_request(c);
    give_slots();
    return true;
  }
  return false;
}

void Server::send_token(Connection& c, std::int64_t now_ns) {
  auto& g = *c.generation;
  const auto& style = g.reply.style();
  const auto token = g.answer.token_at(g.next);
  auto text = piece_of(token);
  if (g.next == g.answer.start() && !g.prefill.empty()) text = g.prefill + text;
  if (!g.cut_text.empty() || g.finish == Finish::kStopWord) {
    // As llama-server does, the beginning of a stop word is held back until the word is whole.
    const bool cut = text.size() > g.cut_text.size();
    text = text.substr(0, std::min(text.size(), g.cut_text.size()));
    g.cut_text.erase(0, text.size());
    text = g.held + text;
    g.held.clear();
    if (cut && g.next + 1 < g.end) std::swap(g.held, text);
  }
  ++g.next;
  ++counters_.predicted_tokens;
  if (!style.stream) {
    g.text += text;
    g.tokens.push_back(token);
    return;
  }
  if (!g.head_sent) {
    c.out += http_stream_head(c.request.keep_alive);
    g.reply.append_first(c.out);
    g.head_sent = true;
  }
  if (g.answer.control().stamp > 0) text = " @" + std::to_string(monotonic_ns());
  if (!text.empty()) g.reply.append_token(c.out, text, token, timings_of(g, now_ns));
}

void Server::end_generation(Connection& c, std::int64_t now_ns) {
  auto& g = *c.generation;
  const auto timings = timings_of(g, now_ns);
  counters_.prompt_tokens += timings.prompt_n;
  counters_.prompt_ms += timings.prompt_ms;
  counters_.predicted_ms += timings.predicted_ms;
  if (g.reply.style().stream) {
    if (!g.head_sent) {
      c.out += http_stream_head(c.request.keep_alive);
      g.reply.append_first(c.out);
    }
    g.reply.append_last(c.out, g.finish, g.stop_word, timings);
    c.out += kLastChunk;
  } else {
    c.out +=
        http_response(200, "application/json; charset=utf-8",
                      g.reply.whole(g.text, g.tokens, g.finish, g.stop_word, timings), c.request.keep_alive);
  }
  release(c);
  finish_request(c);
  give_slots();
}

void Server::release(Connection& c) {
  c.generation.reset();
  if (c.slot < 0) return;
  slots_[static_cast<std::size_t>(c.slot)] = nullptr;
  free_slots_.push_back(c.slot);
  c.slot = -1;
}

}  // namespace aiv::fake
