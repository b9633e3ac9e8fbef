// What loads teach about estimates outlives the controller.
#include <filesystem>
#include <fstream>

#include "api_rig.hpp"
#include "core/footprint.hpp"
#include "../support/models.hpp"
#include "wire/model_file.hpp"

namespace aiv::controller {
namespace {

struct Controller {
  boost::asio::io_context context{1};
  MemoryStore* memory = nullptr;
  std::unique_ptr<Cluster> cluster;
  bool loaded = false;

  explicit Controller(const std::vector<KeyValue>& stored = {}) {
    auto store = std::make_unique<MemoryStore>();
    memory = store.get();
    for (const KeyValue& kv : stored) store->txn({{}, {Op::put(kv.key, kv.value)}});
    cluster = std::make_unique<Cluster>(context.get_executor(), std::move(store), ClusterOptions{});
    net::spawn(context.get_executor(), load(), "load");
    EXPECT_TRUE(until([this] { return loaded; }));
    net::spawn(context.get_executor(), cluster->run(), "applier");
  }
  ~Controller() {
    cluster->stop();
    context.restart();
    context.run_for(std::chrono::milliseconds(50));
  }
  net::Task<> load() {
    const auto result = co_await cluster->load();
    EXPECT_TRUE(result);
    loaded = true;
  }
  template <class Condition>
  bool until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition() && std::chrono::steady_clock::now() < deadline) {
      context.restart();
      context.run_one_for(std::chrono::milliseconds(20));
    }
    return condition();
  }
  std::vector<KeyValue> stored(const char* prefix) { return memory->range(prefix, prefix_end(prefix), 0, 0)->kvs; }
};

NodeObserved node_with_a_card(std::int64_t seq) {
  NodeObserved document;
  document.node = "n1";
  document.incarnation = 1;
  document.seq = seq;
  Device device;
  device.id = "n1/0";
  device.name = "GTX 1080/SFF";
  device.backend = "vulkan";
  device.driver = "565.1 beta";
  device.vram_bytes = device.free_bytes = 8LL << 30;
  document.devices.push_back(device);
  return document;
}

class StoredMargins : public testing::Test {
 protected:
  void SetUp() override {
    path = (std::filesystem::temp_directory_path() / ("aiv-margin-" + std::to_string(::getpid()) + ".gguf"))
               .string();
    test::DenseShape shape;
    test::GgufBuilder builder = test::dense_keys(shape);
    test::dense_tensors(builder, shape);
    std::ofstream(path, std::ios::binary) << builder.file();
    auto facts = read_model_file(path);
    ASSERT_TRUE(facts) << facts.error().message();
    model.id = "chat";
    model.path = path;
    model.facts = std::make_shared<const ModelFacts>(*std::move(facts));
  }
  void TearDown() override { std::filesystem::remove(path); }

  void join_and_deploy(Controller& controller) {
    controller.cluster->take(event::LinkUp{"n1"});
    controller.cluster->take(event::Observed{node_with_a_card(1)});
    controller.cluster->take(event::ModelPut{model});
    Deployment deployment;
    deployment.name = deployment.model = "chat";
    deployment.replicas_min = deployment.replicas_max = 1;
    controller.cluster->take(event::DeploymentPut{deployment});
  }

  std::string path;
  ModelRecord model;
};

TEST_F(StoredMargins, AResidualIsStoredAndTheNextControllerKeepsThatMuchFree) {
  constexpr Bytes kMore = 700LL << 20;
  std::vector<KeyValue> kept;
  MarginKey key;
  {
    Controller first;
    join_and_deploy(first);
    ASSERT_TRUE(first.until([&] {
      const NodeDesired* desired = first.cluster->desired_for("n1");
      return desired != nullptr && desired->replicas.size() == 1;
    }));
    const ReplicaSpec spec = first.cluster->desired_for("n1")->replicas.front();
    NodeObserved document = node_with_a_card(2);
    document.applied = first.cluster->desired_for("n1")->version;
    ReplicaStatus status;
    status.id = spec.id;
    status.deployment = spec.deployment;
    status.state = ReplicaState::kReady;
    status.measured = spec.devices;
    status.measured.front().compute += kMore;
    status.measured.front().overhead = 0;
    document.replicas.push_back(status);
    first.cluster->take(event::Observed{document});
    ASSERT_TRUE(first.until([&] { return first.stored(kMarginPrefix).size() == 1; }));
    const auto& learned = first.cluster->state().margins;
    ASSERT_EQ(learned.size(), 1u);
    key = learned.begin()->first;
    EXPECT_EQ(key, (MarginKey{"vulkan", "565.1 beta", "GTX 1080/SFF", "llama"}));
    kept = first.stored(kMarginPrefix);
  }
  Controller second(kept);
  ASSERT_EQ(second.cluster->state().margins.size(), 1u);
  EXPECT_EQ(second.cluster->state().margins.at(key).residuals, std::vector<Bytes>{kMore});
  join_and_deploy(second);
  ASSERT_TRUE(second.until([&] { return !second.cluster->state().nodes.at("n1").margins.empty(); }));
  EXPECT_EQ(second.cluster->state().nodes.at("n1").margins.at("n1/0"), kMore + (8LL << 30) / 100);
}

TEST_F(StoredMargins, ARecordThatCannotBeReadIsLeftOutAndTheStateStaysWritable) {
  const MarginKey key{"vulkan", "d", "card", "llama"};
  const std::string sound = margin_to_text(key, {{1, -2, 3}, true});
  const auto read = margin_from_text(sound);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->first, key);
  EXPECT_EQ(read->second, (MarginHistory{{1, -2, 3}, true}));
  for (const char* bad : {"", "[]", R"({"backend":"v","driver":"d","card":"c"})",
                          R"({"backend":"v","driver":"d","card":"c","architecture":"a","residuals":[1.5]})",
                          R"({"backend":"v","driver":"d","card":"c","architecture":"a","residuals":{}})"}) {
    EXPECT_FALSE(margin_from_text(bad)) << bad;
    Controller controller({{margin_key(key), bad, 1, 1}});
    EXPECT_TRUE(controller.cluster->state().margins.empty());
    EXPECT_TRUE(controller.cluster->read_only_reason().empty());
  }
}

}  // namespace
}  // namespace aiv::controller
