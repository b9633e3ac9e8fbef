// Whatever the cards and the models are: who would fit an empty cluster is not kept waiting by idle replicas.
#include "core/prng.hpp"
#include "story.hpp"

namespace aiv {
namespace {

struct Site {
  std::vector<std::vector<Bytes>> nodes;
  std::vector<bool> exclusive;  // by node: its first device
  std::vector<Bytes> models;    // bytes of a layer, or of the weights of a model of the fake engine
  bool real = true;

  explicit Site(std::uint64_t seed) {
    Prng prng(seed);
    real = prng.chance(2, 3);
    const Bytes unit = real ? 16 * kMiB : 64 * kMiB;  // as fine as the difference that a slot makes
    for (std::uint32_t n = 0; n < 1 + prng.below(3); ++n) {
      auto& devices = nodes.emplace_back();
      for (std::uint32_t d = 0; d < 1 + prng.below(2); ++d) {
        devices.push_back((64 + prng.below(96)) * unit);
      }
      exclusive.push_back(prng.chance(1, 4));
    }
    for (std::uint32_t m = 0; m < 2 + prng.below(4); ++m)
      models.push_back(unit * (1 + prng.below(real ? 72 : 150)));
  }

  // A cluster of these nodes with the models of `only` on demand.
  void build(test::Story& story, const std::vector<std::size_t>& only) const {
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      const std::string id = "n" + std::to_string(n);
      story.join(id, nodes[n], real ? "vulkan" : "fake");
      NodePolicy policy;
      policy.devices[id + "/0"].exclusive = exclusive[n];
      story.take(event::NodePut{id, policy});
    }
    for (const std::size_t m : only) {
      const std::string name = name_of(m);
      if (real)
        story.add_real_model(name, "llama", models[m]);
      else
        story.add_model(name, models[m]);
      Deployment deployment;
      deployment.name = deployment.model = name;
      deployment.replicas_min = 0;
      story.take(event::DeploymentPut{deployment});
      story.deliver();
    }
  }
  static std::string name_of(std::size_t m) { return std::string(1, static_cast<char>('a' + m)); }
};

bool answers_alone(const Site& site, std::size_t m) {
  test::Story story;
  site.build(story, {m});
  story.counts[Site::name_of(m)] = {0, 1};
  story.seconds(10);
  return !story.routed(Site::name_of(m)).empty();
}

// A third of a second each without optimisation; 400 were run when the test was written.
constexpr std::uint64_t kSeeds = 20;

TEST(EvictionLiveness, WhoFitsAnEmptyClusterIsNotKeptWaitingByIdleReplicas) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Site site(seed);
    std::vector<std::size_t> all(site.models.size());
    std::vector<bool> fits;
    for (std::size_t m = 0; m < all.size(); ++m) {
      all[m] = m;
      fits.push_back(answers_alone(site, m));
    }
    test::Story story;
    site.build(story, all);
    Prng prng(seed + 1'000'000);
    for (int round = 0; round < 6; ++round) {
      const auto m = prng.below(static_cast<std::uint32_t>(all.size()));
      const std::string name = Site::name_of(m);
      story.counts[name] = {0, 1};
      story.seconds(30);
      // Who stepped down for it may have come back where it would have gone, and stays a while.
      if (fits[m] && story.routed(name).empty() && story.told("replica.stepped_down")) story.seconds(60);
      // What loads teach of margins may make room where there was none.
      EXPECT_TRUE(!fits[m] || !story.routed(name).empty())
          << "seed " << seed << ", round " << round << ", " << name;
      story.counts[name] = {0, 0};
      story.seconds(65);
    }
  }
}

}  // namespace
}  // namespace aiv
