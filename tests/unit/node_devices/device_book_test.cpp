// Whether a replica may load on this node: the last check before memory is taken, against figures measured
// now.
#include "node/device_book.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>

#include "base/units.hpp"

namespace aiv::node {
namespace {

using testing::HasSubstr;

// Cards whose figures the test sets.
class Cards final : public DeviceSource {
 public:
  explicit Cards(std::vector<Device>& now) : now_(now) {}
  net::Task<std::vector<Device>> measure(std::vector<OwnUse>) override { co_return now_; }
  Result<EngineView> view(const std::vector<std::string>& ids) override {
    EngineView view;
    for (const std::string& id : ids) view.names.push_back("Vulkan-" + id);
    return view;
  }
  [[nodiscard]] std::string engine_name() const override { return "test"; }

 private:
  std::vector<Device>& now_;
};

Device card(std::string id, Bytes total, Bytes free) {
  Device device;
  device.id = std::move(id);
  device.vram_bytes = total;
  device.free_bytes = free;
  return device;
}

ReplicaSpec replica(std::string id, std::vector<std::pair<std::string, Bytes>> devices) {
  ReplicaSpec spec;
  spec.id = std::move(id);
  for (const auto& [device, bytes] : devices) {
    DeviceBytes share;
    share.device_id = device;
    share.weights = bytes;
    spec.devices.push_back(share);
  }
  return spec;
}

class RoomOnANode : public testing::Test {
 protected:
  RoomAnswer ask(const ReplicaSpec& spec) {
    RoomAnswer answer;
    net::spawn(context_.get_executor(), put(book_, spec, answer), "test");
    context_.restart();
    context_.run();
    return answer;
  }
  static net::Task<> put(DeviceBook& book, ReplicaSpec spec, RoomAnswer& answer) {
    answer = co_await book.ask(std::move(spec));
  }

  boost::asio::io_context context_;
  std::vector<Device> cards_ = {card("n1/0", 8 * kGiB, 8 * kGiB), card("n1/1", 4 * kGiB, 4 * kGiB)};
  DeviceBook book_{std::make_unique<Cards>(cards_), [](const std::string&) { return std::vector<OwnUse>{}; }};
};

TEST_F(RoomOnANode, IsGivenWithTheDevicesAsTheEngineSeesThem) {
  const RoomAnswer answer = ask(replica("a", {{"n1/1", 3 * kGiB}, {"n1/0", 5 * kGiB}}));
  EXPECT_EQ(answer.event, LifeEvent::kRoom) << answer.detail;
  EXPECT_EQ(answer.view.names, (std::vector<std::string>{"Vulkan-n1/1", "Vulkan-n1/0"}));
  EXPECT_EQ(answer.free_before.at("n1/0"), 8 * kGiB);
}

TEST_F(RoomOnANode, IsGivenToOneLoadAtATimePerDevice) {
  EXPECT_EQ(ask(replica("a", {{"n1/0", kGiB}})).event, LifeEvent::kRoom);
  const RoomAnswer second = ask(replica("b", {{"n1/0", kGiB}}));
  EXPECT_EQ(second.event, LifeEvent::kNotYet);
  EXPECT_THAT(second.detail, HasSubstr("a is loading on n1/0"));
  EXPECT_EQ(ask(replica("c", {{"n1/1", kGiB}})).event, LifeEvent::kRoom);
  book_.loading_done("a");
  EXPECT_EQ(ask(replica("b", {{"n1/0", kGiB}})).event, LifeEvent::kRoom);
}

TEST_F(RoomOnANode, IsMeasuredAnewForEachLoadAndTellsWhoHoldsTheRest) {
  cards_[0].free_bytes = 2 * kGiB;
  cards_[0].foreign_bytes = 6 * kGiB;
  const RoomAnswer no = ask(replica("a", {{"n1/0", 3 * kGiB}}));
  EXPECT_EQ(no.event, LifeEvent::kNoRoom);
  EXPECT_THAT(no.detail, HasSubstr("6.0 GiB held by other programs"));
  cards_[0].free_bytes = 8 * kGiB;
  EXPECT_EQ(ask(replica("a", {{"n1/0", 3 * kGiB}})).event, LifeEvent::kRoom)
      << "a refusal keeps nobody's place";
}

TEST_F(RoomOnANode, OneDeviceTooFullIsEnoughToRefuseASplit) {
  cards_[1].free_bytes = kGiB;
  EXPECT_EQ(ask(replica("a", {{"n1/1", 2 * kGiB}, {"n1/0", kGiB}})).event, LifeEvent::kNoRoom);
  EXPECT_EQ(ask(replica("b", {{"n1/0", kGiB}, {"n1/1", 2 * kGiB}})).event, LifeEvent::kNoRoom);
}

TEST_F(RoomOnANode, WhatNoWaitingCanMendIsUnfit) {
  EXPECT_EQ(ask(replica("a", {{"n1/0", 9 * kGiB}})).event, LifeEvent::kUnfit);
  EXPECT_THAT(ask(replica("a", {{"n1/7", kGiB}})).detail, HasSubstr("no device n1/7"));
  cards_[0].refused = "its driver is too old";
  EXPECT_THAT(ask(replica("a", {{"n1/0", kGiB}})).detail, HasSubstr("too old"));
}

// The engine says nothing when a tensor is larger than the driver can bind: it computes it on the CPU.
TEST_F(RoomOnANode, ATensorLargerThanTheDriverBindsIsUnfitBeforeItIsLoaded) {
  ReplicaSpec spec = replica("a", {{"n1/0", 3 * kGiB}});
  spec.largest_tensor = 2 * kGiB;
  cards_[0].max_storage_buffer_range = 2 * kGiB - 1;
  const RoomAnswer no = ask(spec);
  EXPECT_EQ(no.event, LifeEvent::kUnfit);
  EXPECT_THAT(no.detail, HasSubstr("would compute it on the CPU"));
  cards_[0].max_storage_buffer_range = 2 * kGiB;
  EXPECT_EQ(ask(spec).event, LifeEvent::kRoom);
  book_.loading_done("a");
  cards_[0].max_storage_buffer_range = 0;  // not known: not a limit
  EXPECT_EQ(ask(spec).event, LifeEvent::kRoom);
}

}  // namespace
}  // namespace aiv::node
