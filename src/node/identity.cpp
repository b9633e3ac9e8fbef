#include "node/identity.hpp"

#include <chrono>
#include <filesystem>

#include "base/file.hpp"
#include "base/host.hpp"
#include "base/json.hpp"
#include "base/units.hpp"
#include "net/h2.hpp"
#include "net/pki.hpp"

namespace aiv::node {
namespace {

constexpr auto kJoinLimit = net::seconds(15);
constexpr std::size_t kPemMax = 64 * 1024;

Membership files_of(const std::string& data_dir) {
  const std::string dir = data_dir + "/tls";
  Membership out;
  out.ca_file = dir + "/ca.pem";
  out.cert_file = dir + "/node.pem";
  out.key_file = dir + "/node.key";
  return out;
}

// The key is kept before anything is asked for: whoever signs for it must find it again.
Result<net::NewRequest> request_with_kept_key(const std::string& key_file, const std::string& identity) {
  std::error_code ignored;
  if (std::filesystem::exists(key_file, ignored)) return net::make_request_for(key_file, identity);
  auto made = net::make_request(identity);
  if (!made) return made;
  if (auto written = write_file_durably(key_file, made->key, 0600); !written) return std::unexpected(written.error());
  return made;
}

ErrorCode code_of_status(int status) {
  switch (status) {
    case 400: return ErrorCode::kInvalidArgument;
    case 401: return ErrorCode::kUnauthorized;
    case 409: return ErrorCode::kConflict;
    case 429: return ErrorCode::kRefused;
    case 503: return ErrorCode::kUnavailable;
    default: return ErrorCode::kInternal;
  }
}

net::Task<> keep_reading(net::H2Ptr link) { (void)co_await link->run(); }

// Asks over a connection that has been checked against the pin.
net::Task<Result<Json>> ask(net::H2Ptr link, Json wish) {
  net::RequestHead head{.method = "POST", .path = "/join/v1/node", .query = {}, .headers = {}};
  head.headers.push_back({"content-type", "application/json"});
  std::string text = dump_json(wish);
  const auto deadline = net::Clock::now() + kJoinLimit;
  auto opened = co_await link->open(std::move(head), std::move(text));
  if (!opened) co_return std::unexpected(opened.error());
  const net::ClientExchangePtr exchange = *opened;
  const auto answered = co_await exchange->head(deadline);
  if (!answered) co_return std::unexpected(answered.error());
  const auto body = co_await exchange->read_body(kPemMax, deadline);
  if (!body) co_return std::unexpected(body.error());
  auto json = parse_json(*body);
  if (!json || !json->is_object()) co_return fail(ErrorCode::kInternal, "the server's answer is not JSON");
  if (answered->status == 200) co_return json;
  std::string message = "the server answered " + std::to_string(answered->status);
  if (json->contains("error") && (*json)["error"].is_object()) message = (*json)["error"].value("message", message);
  co_return fail(code_of_status(answered->status), printable(message, 500));
}

// A connection to a server whose authority has the pin, by the protocol that wants no certificate of us.
net::Task<Result<net::H2Ptr>> open_door(std::string server_address, std::string pin) {
  auto tls = net::TlsContext::make_pinned(std::move(pin), "aiv-join/1");
  if (!tls) co_return std::unexpected(tls.error());
  const std::string where = server_address.substr(4);
  auto stream = co_await net::dial(server_address, *tls, net::seconds(8));
  if (!stream && stream.error().code == ErrorCode::kUnauthorized) {
    co_return fail(
        ErrorCode::kUnauthorized,
        "the server is not the one this token is for (its authority has another key, or it is no AIvailable "
        "server)",
        where);
  }
  if (!stream) co_return fail(ErrorCode::kUnavailable, stream.error().reason, where);
  // Signed by the right authority, but by a node's certificate: not somebody to give a token to.
  const auto names = (*stream)->peer_identities();
  if (names.empty() || net::identity_of(names.front(), "server").empty()) {
    co_return fail(ErrorCode::kUnauthorized, "whoever answers there is not a server", where);
  }
  net::H2Ptr link = net::H2Connection::client(std::move(*stream));
  const net::Executor executor = co_await net::this_executor();
  net::spawn(executor, keep_reading(link), "join.read");
  co_return link;
}

Result<> store(const Membership& member, const std::string& token_pin, const Json& answer) {
  JsonReader reader(answer, "");
  const std::string certificate = reader.string("certificate", kPemMax);
  const std::string authority = reader.string("authority", kPemMax);
  if (!reader.ok()) return std::unexpected(reader.error());
  const auto pin = net::authority_pin(authority);
  if (!pin || *pin != token_pin) {
    return fail(ErrorCode::kUnauthorized, "the server sent an authority that is not the token's");
  }
  const auto key = read_file(member.key_file, kPemMax);
  if (!key) return std::unexpected(key.error());
  if (auto sound = net::check_issued(certificate, *key, authority, "node/" + member.node_id); !sound) return sound;
  if (auto written = write_file_durably(member.ca_file, authority, 0644); !written) return written;
  if (auto written = write_file_durably(member.cert_file, certificate, 0644); !written) return written;
  const Json record{{"id", member.node_id}, {"server", member.server_address}};
  const std::string folder = member.ca_file.substr(0, member.ca_file.rfind('/'));
  return write_file_durably(folder + "/join.json", dump_json(record) + "\n", 0600);
}

}  // namespace

Result<std::optional<Membership>> read_membership(const std::string& data_dir) {
  const std::string path = data_dir + "/tls/join.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  const auto text = read_file(path, 4096);
  if (!text) return std::unexpected(text.error());
  const auto json = parse_json(*text);
  if (!json || !json->is_object()) return fail(ErrorCode::kCorrupt, "is not what a join wrote", path);
  JsonReader reader(*json, "join.json");
  Membership member = files_of(data_dir);
  member.node_id = reader.string("id", 128);
  member.server_address = reader.string("server", 512);
  if (!reader.ok()) return fail(ErrorCode::kCorrupt, reader.error().message(), path);
  return member;
}

net::Task<Result<Membership>> join_cluster(JoinOptions options) {
  Membership member = files_of(options.data_dir);
  member.node_id = options.node_id;
  member.server_address = options.server_address;
  if (auto made = make_directories(options.data_dir + "/tls", 0700); !made) co_return std::unexpected(made.error());
  auto link = co_await open_door(options.server_address, options.token.pin);
  if (!link && link.error().code == ErrorCode::kUnauthorized) {
    co_return fail(ErrorCode::kUnauthorized, link.error().reason + "; nothing was sent to it",
                   link.error().where);
  }
  if (!link) co_return std::unexpected(link.error());
  const auto request = request_with_kept_key(member.key_file, "node/" + member.node_id);
  if (!request) co_return std::unexpected(request.error());
  Json wish;
  wish["token_id"] = options.token.id;
  wish["secret"] = options.token.secret;
  wish["node"] = member.node_id;
  wish["request"] = request->request;
  wish["time_ms"] = unix_ms();
  const auto answer = co_await ask(*link, std::move(wish));
  (*link)->close("joined");
  if (!answer) co_return std::unexpected(answer.error());
  if (const auto stored = store(member, options.token.pin, *answer); !stored) co_return std::unexpected(stored.error());
  co_return member;
}

Result<bool> certificate_lapsed(const std::string& cert_file) {
  const auto pem = read_file(cert_file, kPemMax);
  const auto facts =
      pem ? net::certificate_facts(*pem) : Result<net::CertificateFacts>(std::unexpected(pem.error()));
  if (!facts) return std::unexpected(facts.error());
  return facts->expires_at_s <= unix_ms() / 1000;
}

net::Task<Result<>> renew_lapsed(Membership member) {
  const auto authority = read_file(member.ca_file, kPemMax);
  if (!authority) co_return std::unexpected(authority.error());
  const auto pin = net::authority_pin(*authority);
  if (!pin) co_return std::unexpected(pin.error());
  const auto certificate = read_file(member.cert_file, kPemMax);
  if (!certificate) co_return std::unexpected(certificate.error());
  const auto request = renewal_request(member.key_file, member.node_id);
  if (!request) co_return std::unexpected(request.error());
  auto link = co_await open_door(member.server_address, *pin);
  if (!link && link.error().code == ErrorCode::kUnauthorized) {
    co_return fail(ErrorCode::kUnauthorized, "whoever answers there is not this cluster's server",
                   link.error().where);
  }
  if (!link) co_return std::unexpected(link.error());
  Json wish;
  wish["certificate"] = *certificate;
  wish["node"] = member.node_id;
  wish["request"] = *request;
  wish["time_ms"] = unix_ms();
  const auto answer = co_await ask(*link, std::move(wish));
  (*link)->close("renewed");
  if (!answer) co_return std::unexpected(answer.error());
  JsonReader reader(*answer, "");
  const std::string renewed = reader.string("certificate", kPemMax);
  if (!reader.ok()) co_return std::unexpected(reader.error());
  co_return store_renewed(member, renewed);
}

Result<std::int64_t> renewal_due_in_s(const std::string& cert_file) {
  const auto pem = read_file(cert_file, kPemMax);
  if (!pem) return std::unexpected(pem.error());
  const auto facts = net::certificate_facts(*pem);
  if (!facts) return std::unexpected(facts.error());
  const std::int64_t due_s = facts->issued_at_s + (facts->expires_at_s - facts->issued_at_s) / 3 * 2;
  return std::max<std::int64_t>(0, due_s - unix_ms() / 1000);
}

Result<std::string> renewal_request(const std::string& key_file, const std::string& node_id) {
  auto made = net::make_request_for(key_file, "node/" + node_id);
  if (!made) return std::unexpected(made.error());
  return std::move(made->request);
}

Result<> store_renewed(const Membership& member, const std::string& certificate_pem) {
  const auto key = read_file(member.key_file, kPemMax);
  if (!key) return std::unexpected(key.error());
  const auto authority = read_file(member.ca_file, kPemMax);
  if (!authority) return std::unexpected(authority.error());
  if (auto sound = net::check_issued(certificate_pem, *key, *authority, "node/" + member.node_id); !sound) return sound;
  return write_file_durably(member.cert_file, certificate_pem, 0644);
}

}  // namespace aiv::node
