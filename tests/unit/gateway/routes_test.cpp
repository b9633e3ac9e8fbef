#include "gateway/routes.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>

#include "base/file.hpp"
#include "gateway/node_links.hpp"

namespace aiv::gateway {
namespace {

class RouteStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char dir[] = "/tmp/aiv-routes-XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    dir_ = dir;
    path_ = dir_ + "/routes.json";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  Result<> offer(RouteStore& store, RouteTable table) {
    Result<> result = fail(ErrorCode::kInternal, "not run");
    net::spawn(loop_.get_executor(), run(&store, std::move(table), &result), "offer");
    loop_.restart();
    loop_.run();
    return result;
  }
  static net::Task<> run(RouteStore* store, RouteTable table, Result<>* result) {
    *result = co_await store->offer(std::move(table));
  }
  static RouteTable table(std::int64_t epoch, std::int64_t rev, std::string model) {
    RouteTable t;
    t.version = {epoch, rev};
    t.models.push_back({.name = std::move(model), .model = "x", .state = "ready"});
    return t;
  }

  boost::asio::io_context loop_;
  std::string dir_;
  std::string path_;
};

TEST_F(RouteStoreTest, ATableIsPersistedBeforeItIsUsedAndLoadedAtTheNextStart) {
  RouteStore store(loop_.get_executor(), path_);
  ASSERT_TRUE(store.load()) << "an absent file is an empty table";
  ASSERT_TRUE(offer(store, table(1, 1, "qwen")));
  EXPECT_NE(store.current()->find_model("qwen"), nullptr);
  EXPECT_NE(store.current()->find_model("qwen:latest"), nullptr);
  EXPECT_EQ(store.current()->find_model("qwen:8b"), nullptr);
  RouteStore next(loop_.get_executor(), path_);
  ASSERT_TRUE(next.load());
  EXPECT_NE(next.current()->find_model("qwen"), nullptr);
}

TEST_F(RouteStoreTest, AnOlderTableIsRefusedAlsoAfterARestart) {
  RouteStore store(loop_.get_executor(), path_);
  ASSERT_TRUE(offer(store, table(2, 5, "new")));
  for (const auto& [epoch, rev] : {std::pair{1, 9}, std::pair{2, 4}}) {
    const auto refused = offer(store, table(epoch, rev, "old"));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kConflict);
    EXPECT_EQ(refused.error().where, "2.5");
  }
  EXPECT_TRUE(offer(store, table(2, 5, "new"))) << "the same again is fine";
  RouteStore next(loop_.get_executor(), path_);
  ASSERT_TRUE(next.load());
  EXPECT_FALSE(offer(next, table(2, 4, "old")));
  EXPECT_TRUE(offer(next, table(3, 1, "newer")));
}

TEST_F(RouteStoreTest, ADamagedFileIsAnErrorAndAnEmptyTableThatTakesTheNextOne) {
  ASSERT_TRUE(write_file_durably(path_, "{\"version\":"));
  RouteStore store(loop_.get_executor(), path_);
  EXPECT_FALSE(store.load());
  EXPECT_TRUE(offer(store, table(1, 1, "m")));
}

TEST_F(RouteStoreTest, WhatCannotBePersistedIsNotUsed) {
  RouteStore store(loop_.get_executor(), dir_ + "/missing/routes.json");
  EXPECT_FALSE(offer(store, table(1, 1, "m")));
  EXPECT_EQ(store.current()->find_model("m"), nullptr);
}

TEST(NodeIdentity, ANodeIsWhoItsCertificateSays) {
  EXPECT_EQ(node_of_identities({"aiv://lab/node/n1"}, "lab").value_or("-"), "n1");
  EXPECT_EQ(node_of_identities({"aiv://lab/node/n1"}, "").value_or("-"), "n1");
  EXPECT_FALSE(node_of_identities({"aiv://other/node/n1"}, "lab"));
  EXPECT_FALSE(node_of_identities({"aiv://lab/server/s1"}, "lab"));
  EXPECT_FALSE(node_of_identities({"aiv://lab/node/../x"}, "lab"));
  EXPECT_FALSE(node_of_identities({}, "lab"));
}

}  // namespace
}  // namespace aiv::gateway
