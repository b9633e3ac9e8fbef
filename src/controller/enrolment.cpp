#include "controller/enrolment.hpp"

#include "base/file.hpp"
#include "base/hash.hpp"
#include "base/log.hpp"
#include "base/units.hpp"

namespace aiv::controller {

namespace {

constexpr std::int64_t kClockOffMaxMs = 5 * 60 * 1000;
constexpr std::int64_t kFailureWindowMs = 60'000;
constexpr std::size_t kFailuresMax = 10;
constexpr std::size_t kAddressesMax = 1024;
constexpr std::size_t kJoinBytesMax = 16 * 1024;

// One answer for every fault of a token: whoever guesses learns nothing. The true reason is an event.
Error not_valid() {
  return {ErrorCode::kUnauthorized,
          "the join token is not valid: it is unknown, expired, used up, or for another node", ""};
}

int status_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kUnauthorized: return 401;
    case ErrorCode::kInvalidArgument: return 400;
    case ErrorCode::kConflict: return 409;
    case ErrorCode::kRefused: return 429;
    case ErrorCode::kUnavailable: return 503;
    default: return 500;
  }
}

}  // namespace

Result<Enrolment::Wish> Enrolment::read(const std::string& body) {
  const auto json = parse_json(body);
  if (!json) return std::unexpected(json.error());
  if (!json->is_object()) return fail(ErrorCode::kInvalidArgument, "the body must be a JSON object");
  JsonReader reader(*json, "");
  Wish wish;
  wish.certificate = reader.string_or("certificate", "", 8 * 1024);
  if (wish.certificate.empty()) {
    wish.token_id = reader.string("token_id", 64);
    wish.secret = reader.string("secret", 128);
  }
  wish.node = reader.string("node", 128);
  wish.request = reader.string("request", 8 * 1024);
  wish.time_ms = reader.integer("time_ms", 0, std::int64_t{1} << 62);
  if (!reader.ok()) return std::unexpected(reader.error());
  return wish;
}

std::string Enrolment::token_fault(const Wish& wish) const {
  const auto found = cluster_.tokens().find(wish.token_id);
  const std::string given = sha256_hex(wish.secret);
  if (found == cluster_.tokens().end()) {
    (void)equal_constant_time(given, std::string(given.size(), '0'));  // as long as for a known one
    return "unknown";
  }
  const TokenRecord& token = found->second;
  if (!equal_constant_time(given, token.secret_sha256)) return "wrong secret";
  if (token.expires_at_ms <= options_.unix_ms()) return "expired";
  if (!token.node.empty() && token.node != wish.node) return "for another node";
  return {};
}

bool Enrolment::too_many_failures(const std::string& peer) {
  const auto found = failures_.find(peer);
  if (found == failures_.end()) return false;
  const std::int64_t since = Cluster::now().steady_ms - kFailureWindowMs;
  while (!found->second.empty() && found->second.front() <= since) found->second.pop_front();
  const bool many = found->second.size() >= kFailuresMax;
  if (found->second.empty()) failures_.erase(found);
  return many;
}

void Enrolment::note_failure(const std::string& peer) {
  // A flood from many addresses forgets the ones that are oldest by name; each still has ten tries only.
  if (failures_.size() >= kAddressesMax && !failures_.contains(peer)) failures_.erase(failures_.begin());
  failures_[peer].push_back(Cluster::now().steady_ms);
}

net::Task<Result<net::Issued>> Enrolment::sign(std::string node, std::string request_pem) {
  auto issued = std::make_shared<Result<net::Issued>>();
  std::function<void()> job = [issued, node, request_pem, options = options_] {
    *issued = net::sign_request(options.authority_dir, "node/" + node, request_pem, options.certificate_s);
  };
  co_await net::run_blocking(std::move(job));
  co_return std::move(*issued);
}

Result<> Enrolment::check_clock(const Wish& wish) const {
  const std::int64_t now_ms = options_.unix_ms();
  if (std::abs(now_ms - wish.time_ms) <= kClockOffMaxMs) return {};
  return fail(ErrorCode::kInvalidArgument, "the clocks differ by more than 5 minutes: here it is " +
                                               rfc3339(now_ms) + ", there " + rfc3339(wish.time_ms));
}

Result<> Enrolment::check_old_certificate(const Wish& wish) const {
  const std::string join_again =
      "; join it again: on the server aiv node rm " + wish.node + " and aiv token create --node " + wish.node;
  const auto authority = read_file(options_.authority_dir + "/ca.pem", 64 * 1024);
  if (!authority) return fail(ErrorCode::kUnavailable, "the cluster's authority cannot be read");
  const auto ours =
      net::check_certified(wish.certificate, wish.request, *authority, "node/" + wish.node);
  if (!ours && ours.error().code == ErrorCode::kUnauthorized) return ours;
  if (!ours) return fail(ErrorCode::kInvalidArgument, ours.error().reason, "certificate");
  const auto facts = net::certificate_facts(wish.certificate);
  if (!facts) return std::unexpected(facts.error());
  const DeniedNode* denied = cluster_.denied(wish.node);
  if (denied != nullptr && facts->issued_at_s < denied->issued_before_s) {
    return fail(ErrorCode::kUnauthorized, "the node was removed from the cluster");
  }
  const NodeSettings settings = cluster_.settings_of(wish.node);
  if (settings.key_pin.empty() && !cluster_.state().nodes.contains(wish.node)) {
    return fail(ErrorCode::kUnauthorized, "no node of this name is known here" + join_again);
  }
  const auto pin = net::request_key_pin(wish.request);
  if (!pin) return std::unexpected(pin.error());
  if (!settings.key_pin.empty() && settings.key_pin != *pin) {
    return fail(ErrorCode::kUnauthorized,
                "a machine with another key has joined under this name since" + join_again);
  }
  const std::int64_t lapsed_s = options_.unix_ms() / 1000 - facts->expires_at_s;
  if (lapsed_s > options_.lapsed_s_max) {
    return fail(ErrorCode::kUnauthorized,
                "the certificate lapsed on " + rfc3339(facts->expires_at_s * 1000) + ", more than " +
                    format_duration_ms(options_.lapsed_s_max * 1000) + " ago" + join_again);
  }
  return {};
}

net::Task<Result<net::Issued>> Enrolment::come_back(Wish wish, std::string peer) {
  if (too_many_failures(peer)) {
    co_return fail(ErrorCode::kRefused, "too many failed tries from this address; wait a minute");
  }
  if (auto sound = check_node_name(wish.node); !sound) {
    co_return fail(ErrorCode::kInvalidArgument, "the node's name " + sound.error().reason);
  }
  if (auto same = check_clock(wish); !same) co_return std::unexpected(same.error());
  if (auto sound = check_old_certificate(wish); !sound) {
    if (sound.error().code == ErrorCode::kUnauthorized) note_failure(peer);
    cluster_.tell("node.renewal_refused", "node/" + wish.node,
                  sound.error().reason + " (asked from " + printable(peer, 64) + ")");
    co_return std::unexpected(sound.error());
  }
  auto issued = co_await sign(wish.node, wish.request);
  if (issued) {
    cluster_.tell(
        "node.certificate_renewed", "node/" + wish.node,
        "until " + rfc3339(issued->expires_at_s * 1000) + "; the one before had lapsed while it was away");
  }
  co_return issued;
}

net::Task<Result<net::Issued>> Enrolment::join(Wish wish, std::string peer) {
  if (too_many_failures(peer)) {
    co_return fail(ErrorCode::kRefused, "too many failed tries from this address; wait a minute");
  }
  const std::string fault = token_fault(wish);
  if (!fault.empty()) {
    note_failure(peer);
    cluster_.tell("node.join_refused", "token/" + printable(wish.token_id, 16),
                  "the token is " + fault + "; asked from " + printable(peer, 64) + " as " + printable(wish.node, 64));
    co_return std::unexpected(not_valid());
  }
  if (auto sound = check_node_name(wish.node); !sound) {
    co_return fail(ErrorCode::kInvalidArgument, "the node's name " + sound.error().reason + "; choose one with --id");
  }
  if (auto same = check_clock(wish); !same) co_return std::unexpected(same.error());
  const std::int64_t now_ms = options_.unix_ms();
  const auto pin = net::request_key_pin(wish.request);
  if (!pin) co_return std::unexpected(pin.error());
  NodeSettings settings = cluster_.settings_of(wish.node);
  const bool again = !settings.key_pin.empty() && settings.key_pin == *pin && settings.joined_token == wish.token_id;
  TokenRecord token = cluster_.tokens().at(wish.token_id);
  if (!again) {
    if (cluster_.state().nodes.contains(wish.node) || !settings.key_pin.empty()) {
      co_return fail(ErrorCode::kConflict, "a node of this name is in the cluster already; choose another with --id, or "
                                           "remove the old one first: aiv node rm " + wish.node);
    }
    if (token.uses_left < 1) {
      note_failure(peer);
      cluster_.tell("node.join_refused", "token/" + token.id, "the token is used up; asked from " + printable(peer, 64));
      co_return std::unexpected(not_valid());
    }
    const std::string token_key = kTokenPrefix + token.id;
    const std::string node_key = kNodePrefix + wish.node;
    --token.uses_left;
    settings.id = wish.node;
    settings.key_pin = *pin;
    settings.joined_token = token.id;
    settings.joined_ms = now_ms;
    settings.policy.labels = token.labels;
    Cluster::Change change =
        Cluster::Change::of("token/" + token.id + " from " + peer, "node.enrolled", "node/" + wish.node);
    change.txn.compares.push_back(cluster_.still_as_known(token_key));
    change.txn.compares.push_back(Compare::absent(node_key));
    change.txn.ops.push_back(Op::put(token_key, token_to_text(token)));
    change.txn.ops.push_back(Op::put(node_key, node_to_text(settings)));
    change.events.emplace_back(event::NodePut{wish.node, settings.policy});
    auto stored = co_await cluster_.change(std::move(change));
    if (!stored && stored.error().code == ErrorCode::kConflict) {
      co_return fail(ErrorCode::kUnavailable, "another machine joined at the same moment; try again");
    }
    if (!stored) co_return std::unexpected(stored.error());
  }
  // A certificate of the second in which the name was removed would be refused with the old ones.
  const DeniedNode* denied = cluster_.denied(wish.node);
  const std::int64_t before_s = denied == nullptr ? 0 : denied->issued_before_s;
  while (Cluster::now().unix_ms / 1000 < before_s) co_await net::sleep_for(net::milliseconds(50));
  co_return co_await sign(wish.node, wish.request);
}

net::Task<> Enrolment::handle(net::ExchangePtr exchange) {
  const std::string peer = net::header_or(exchange->request().headers, "x-aiv-peer", "");
  auto body = co_await exchange->read_body(kJoinBytesMax);
  if (!body) co_return;
  auto wish = read(*body);
  Result<net::Issued> issued = std::unexpected(Error{ErrorCode::kInternal, "not asked", ""});
  if (wish) {
    Wish asked = *std::move(wish);
    if (asked.certificate.empty()) {
      issued = co_await join(std::move(asked), peer);
    } else {
      issued = co_await come_back(std::move(asked), peer);
    }
  } else {
    issued = std::unexpected(Error{ErrorCode::kInvalidArgument, wish.error().message(), ""});
  }
  Json answer;
  int status = 200;
  if (issued) {
    answer["certificate"] = issued->certificate;
    answer["authority"] = issued->authority;
    answer["expires_at_s"] = issued->expires_at_s;
  } else {
    status = status_of(issued.error());
    answer["error"]["message"] = issued.error().message();
    log_warn("node.join_failed", {{"peer", peer}, {"reason", issued.error().message()}});
  }
  std::string text = dump_json(answer);
  const auto sent = co_await exchange->respond_json(status, std::move(text));
  if (!sent) log_debug("join.caller_gone", {{"reason", sent.error().message()}});
}

net::Task<Result<net::Issued>> Enrolment::renew(std::string node, std::string request_pem) {
  if (!cluster_.state().nodes.contains(node)) {
    co_return fail(ErrorCode::kUnauthorized, "the node was removed", node);
  }
  auto issued = co_await sign(node, std::move(request_pem));
  if (issued) cluster_.tell("node.certificate_renewed", "node/" + node, "until " + rfc3339(issued->expires_at_s * 1000));
  co_return issued;
}

}  // namespace aiv::controller
