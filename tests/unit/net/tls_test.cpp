#include <sys/stat.h>

#include <chrono>
#include <thread>

#include "base/file.hpp"
#include "net/pki.hpp"
#include "net/stream.hpp"
#include "support.hpp"

namespace aiv::net {
namespace {

using test::run;

TlsContextPtr context(bool server, const CertificateFiles& files) {
  auto out = TlsContext::make(server, files.cert, files.key, files.ca, true, "aiv-node/1");
  EXPECT_TRUE(out) << out.error().message();
  return *out;
}

struct Listening {
  std::unique_ptr<Listener> listener;
  std::vector<StreamPtr> accepted;
  [[nodiscard]] std::string address() const { return "tcp:127.0.0.1:" + std::to_string(listener->port()); }
};

std::unique_ptr<Listening> listen(Executor executor, const CertificateFiles& files) {
  auto out = std::make_unique<Listening>();
  Listening* raw = out.get();
  auto listener = Listener::open(executor, "tcp:127.0.0.1:0", context(true, files),
                                 [raw](StreamPtr stream) { raw->accepted.push_back(std::move(stream)); });
  EXPECT_TRUE(listener);
  out->listener = std::move(*listener);
  return out;
}

TEST(Tls, ANodeWithACertificateOfTheClusterIsKnownByItsIdentity) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    const std::string ca = dir.path() + "/ca";
    EXPECT_TRUE(ensure_authority(ca, "lab"));
    const auto server = ensure_certificate(ca, "server/srv1", ca, "server", 30);
    const auto node = ensure_certificate(ca, "node/n1", dir.path() + "/n1", "node", 7);
    EXPECT_TRUE(server && node);
    auto listening = listen(executor, *server);
    auto stream = co_await dial(listening->address(), context(false, *node), seconds(5));
    EXPECT_TRUE(stream) << stream.error().message();
    for (int i = 0; i < 500 && listening->accepted.empty(); ++i) co_await sleep_for(milliseconds(2));
    EXPECT_EQ(listening->accepted.size(), 1U);
    const auto names = listening->accepted.at(0)->peer_identities();
    EXPECT_EQ(names.size(), 1U);
    EXPECT_EQ(identity_of(names.at(0), "node"), "n1");
    EXPECT_EQ(identity_of(names.at(0), "server"), "");
    EXPECT_EQ(identity_of((*stream)->peer_identities().at(0), "server"), "srv1");
  });
}

TEST(Tls, ANodeOfAnotherClusterDoesNotGetIn) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    EXPECT_TRUE(ensure_authority(dir.path() + "/a", "lab"));
    EXPECT_TRUE(ensure_authority(dir.path() + "/b", "lab"));
    const auto server = ensure_certificate(dir.path() + "/a", "server/s", dir.path() + "/a", "server", 30);
    auto stranger = ensure_certificate(dir.path() + "/b", "node/n1", dir.path() + "/n", "node", 7);
    EXPECT_TRUE(server && stranger);
    auto listening = listen(executor, *server);
    stranger->ca = server->ca;  // it trusts us; we must not trust it
    auto stream = co_await dial(listening->address(), context(false, *stranger), seconds(5));
    if (stream) {  // in TLS 1.3 the client learns of the refusal only when it reads
      std::string bytes;
      const auto more = co_await (*stream)->read_more(bytes);
      EXPECT_TRUE(!more || !*more);
    }
    EXPECT_TRUE(listening->accepted.empty());
  });
}

TEST(Tls, AMachineWithoutACertificateGetsInByTheJoiningProtocolAloneAndOnlyToTheAuthorityOfItsPin) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    const std::string ca = dir.path() + "/ca";
    EXPECT_TRUE(ensure_authority(ca, "lab"));
    EXPECT_TRUE(ensure_authority(dir.path() + "/other", "lab"));
    const auto server = ensure_certificate(ca, "server/srv1", ca, "server", 30);
    EXPECT_TRUE(server);
    std::vector<StreamPtr> accepted;
    auto tls = context(true, *server);
    EXPECT_TRUE(tls->accept_without_certificate("aiv-join/1", server->ca));
    auto listener = Listener::open(executor, "tcp:127.0.0.1:0", tls,
                                   [&accepted](StreamPtr stream) { accepted.push_back(std::move(stream)); });
    EXPECT_TRUE(listener);
    const std::string address = "tcp:127.0.0.1:" + std::to_string((*listener)->port());
    const auto pin = authority_pin(*read_file(ca + "/ca.pem", 65536));
    const auto wrong_pin = authority_pin(*read_file(dir.path() + "/other/ca.pem", 65536));
    EXPECT_TRUE(pin && wrong_pin && *pin != *wrong_pin && pin->size() == 43);

    auto joining = co_await dial(address, *TlsContext::make_pinned(*pin, "aiv-join/1"), seconds(5));
    EXPECT_TRUE(joining) << joining.error().message();
    for (int i = 0; i < 500 && accepted.empty(); ++i) co_await sleep_for(milliseconds(2));
    EXPECT_EQ(accepted.size(), 1U);
    EXPECT_EQ(accepted.at(0)->protocol(), "aiv-join/1");
    EXPECT_TRUE(accepted.at(0)->peer_identities().empty());
    EXPECT_EQ(identity_of((*joining)->peer_identities().at(0), "server"), "srv1");

    // The pin is checked in the handshake: before a byte of ours leaves.
    auto deceived = co_await dial(address, *TlsContext::make_pinned(*wrong_pin, "aiv-join/1"), seconds(5));
    EXPECT_FALSE(deceived);

    // The protocol of nodes still wants a certificate.
    auto intruder = co_await dial(address, *TlsContext::make_pinned(*pin, "aiv-node/1"), seconds(5));
    if (intruder) {
      std::string bytes;
      const auto more = co_await (*intruder)->read_more(bytes);
      EXPECT_TRUE(!more || !*more);
    }
    co_await sleep_for(milliseconds(50));
    EXPECT_EQ(accepted.size(), 1U);
  });
}

TEST(Pki, KeysAreForTheOwnerOnlyAndAPairIsKept) {
  test::TempDir dir;
  ASSERT_TRUE(ensure_authority(dir.path(), "lab"));
  ASSERT_TRUE(ensure_authority(dir.path(), "other"));
  EXPECT_EQ(authority_cluster(dir.path()).value(), "lab");
  const auto first = ensure_certificate(dir.path(), "node/n1", dir.path() + "/n", "node", 7);
  ASSERT_TRUE(first);
  struct stat info{};
  ASSERT_EQ(::stat(first->key.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  const auto before = std::filesystem::last_write_time(first->cert);
  ASSERT_TRUE(ensure_certificate(dir.path(), "node/n1", dir.path() + "/n", "node", 7));
  EXPECT_EQ(std::filesystem::last_write_time(first->cert), before);
}

TEST(Pki, WhatIsIssuedAfterASecondHasBegunIsNotDatedBeforeIt) {
  using Clock = std::chrono::system_clock;
  test::TempDir dir;
  ASSERT_TRUE(ensure_authority(dir.path(), "lab"));
  const auto request = make_request("node/n1");
  ASSERT_TRUE(request);
  for (int round = 0; round < 2; ++round) {
    const auto second = std::chrono::ceil<std::chrono::seconds>(Clock::now());
    std::this_thread::sleep_until(second - std::chrono::milliseconds(5));
    while (Clock::now() < second) {
    }
    const auto issued = sign_request(dir.path(), "node/n1", request->request, 60);
    ASSERT_TRUE(issued) << issued.error().message();
    EXPECT_GE(certificate_facts(issued->certificate)->issued_at_s, second.time_since_epoch().count());
  }
}

TEST(Listener, APathTooLongForASocketSaysSo) {
  run([](Executor executor) -> Task<> {
    auto listener = Listener::open(executor, "unix:/tmp/" + std::string(120, 'x'), nullptr, [](StreamPtr) {});
    EXPECT_FALSE(listener);
    EXPECT_NE(listener.error().reason.find("shorter data directory"), std::string::npos);
    co_return;
  });
}

TEST(Listener, AnAbandonedSocketIsReplacedAndALivingOneIsNot) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    const std::string address = "unix:" + dir.path() + "/s";
    auto first = Listener::open(executor, address, nullptr, [](StreamPtr) {});
    EXPECT_TRUE(first);
    EXPECT_EQ(Listener::open(executor, address, nullptr, [](StreamPtr) {}).error().code, ErrorCode::kConflict);
    struct stat info{};
    EXPECT_EQ(::stat((dir.path() + "/s").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U);
    co_return;
  });
}

}  // namespace
}  // namespace aiv::net
