#include "sim/store.hpp"

#include "sim/world.hpp"

namespace aiv::sim {

std::string row_of(const Deployment& deployment) {
  return deployment.model + " x" + std::to_string(deployment.replicas_min) + " ctx " +
         std::to_string(deployment.ctx) + " generation " + std::to_string(deployment.generation);
}

void Store::txn(std::int64_t epoch, Change change, Done done) {
  const std::int64_t now = world_.now();
  if (now < refuses_until) {
    world_.queue().after(world_.random().between(1, 5), [done] { done(Outcome::kUnavailable); });
    return;
  }
  // A store without a leader: the write may be lost, or done while nobody hears of it.
  const bool unknown = now < unknown_until;
  const bool lost = unknown && world_.random().chance(0.5);
  world_.queue().after(world_.random().between(1, 12),
                       [this, epoch, change = std::move(change), done, unknown, lost] {
                         if (!lost) {
                           if (epoch != state_.epoch && world_.plant() != Plant::kStoreWithoutFence) {
                             if (!unknown) return done(Outcome::kFenced);
                           } else {
                             world_.checks().write_accepted(epoch, world_.now());
                             change(state_);
                             std::map<std::string, std::string> rows;
                             for (const auto& [name, deployment] : state_.deployments)
                               rows[name] = row_of(deployment);
                             world_.checks().stored(rows, world_.now());
                           }
                         }
                         if (!unknown) return done(Outcome::kCommitted);
                         world_.queue().after(300, [done] { done(Outcome::kUnknown); });
                       });
}

void Store::take_lead(const std::string& holder, std::function<void(std::int64_t epoch)> done) {
  world_.queue().after(world_.random().between(5, 60), [this, holder, done] {
    if (world_.now() < refuses_until || world_.now() < unknown_until) return done(0);
    ++state_.epoch;
    world_.checks().epoch_taken(state_.epoch, holder, world_.now());
    done(state_.epoch);
  });
}

}  // namespace aiv::sim
