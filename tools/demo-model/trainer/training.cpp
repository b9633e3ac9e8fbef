#include "demo-model/trainer/training.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "demo-model/trainer/random.hpp"

namespace aiv::demo {
namespace {

constexpr float kBeta1 = 0.9F;
constexpr float kBeta2 = 0.95F;
constexpr float kAdamEpsilon = 1e-8F;
constexpr std::uint16_t kAnswerBit = 0x8000;

// Endless, newly shuffled each time round.
class Stream {
 public:
  Stream(const std::vector<Document>& documents, std::uint64_t seed) : documents_(documents), random_(seed) {
    order_.resize(documents.size());
    for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = i;
    shuffle();
  }
  // Documents of at most `tokens` tokens together, one at least.
  std::vector<const Document*> take(Index tokens) {
    std::vector<const Document*> out;
    for (Index left = tokens;;) {
      const Document& document = documents_[order_[at_]];
      left -= static_cast<Index>(document.tokens.size());
      if (left < 0 && !out.empty()) return out;
      out.push_back(&document);
      if (++at_ == order_.size()) shuffle();
    }
  }

 private:
  void shuffle() {
    at_ = 0;
    for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random_.below(i)]);
  }
  const std::vector<Document>& documents_;
  Random random_;
  std::vector<std::size_t> order_;
  std::size_t at_ = 0;
};

struct Worker {
  explicit Worker(const Layout& layout) : pass(layout), gradients(static_cast<std::size_t>(layout.total)) {}
  Pass pass;
  std::vector<float> gradients;
  std::vector<const Document*> documents;
  double loss = 0;
  std::int64_t tokens = 0;
};

Index answers_in(const std::vector<const Document*>& documents) {
  Index count = 0;
  for (const Document* d : documents) count += std::count(d->answer.begin() + 1, d->answer.end(), 1);
  return count;
}

}  // namespace

Result<std::vector<Document>> read_documents(const std::string& path, Index vocab) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorCode::kIo, std::string("cannot be read: ") + std::strerror(errno), path);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const auto number = [&](std::size_t at) {
    return static_cast<std::uint16_t>(static_cast<unsigned char>(bytes[at]) |
                                      (static_cast<unsigned char>(bytes[at + 1]) << 8));
  };
  std::vector<Document> documents;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = at + 2 <= bytes.size() ? number(at) : 0;
    at += 2;
    if (length < 2 || at + 2 * length > bytes.size())
      return fail(ErrorCode::kInvalidArgument, "is cut off", path);
    Document document;
    for (std::size_t i = 0; i < length; ++i, at += 2) {
      const std::uint16_t value = number(at);
      const auto token = static_cast<std::uint16_t>(value & ~kAnswerBit);
      if (token >= vocab)
        return fail(ErrorCode::kInvalidArgument, "has a token outside the vocabulary", path);
      document.tokens.push_back(token);
      document.answer.push_back((value & kAnswerBit) != 0 ? 1 : 0);
    }
    documents.push_back(std::move(document));
  }
  if (documents.empty()) return fail(ErrorCode::kInvalidArgument, "holds no document", path);
  return documents;
}

float rate_at(const Recipe& recipe, Index step) {
  if (step < recipe.warmup_steps) {
    return recipe.rate * static_cast<float>(step + 1) / static_cast<float>(recipe.warmup_steps);
  }
  const float done = static_cast<float>(step - recipe.warmup_steps) /
                     static_cast<float>(std::max<Index>(1, recipe.steps - recipe.warmup_steps));
  return recipe.rate * (0.05F + 0.95F * 0.5F * (1.0F + std::cos(3.14159265F * std::min(done, 1.0F))));
}

AdamW::AdamW(const Layout& layout)
    : layout_(layout),
      first_(static_cast<std::size_t>(layout.total)),
      second_(static_cast<std::size_t>(layout.total)) {}

void AdamW::step(const Recipe& recipe, float rate, std::vector<float>& gradients,
                 std::vector<float>& parameters) {
  ++steps_;
  double squares = 0;
  for (const float g : gradients) squares += static_cast<double>(g) * static_cast<double>(g);
  const auto length = static_cast<float>(std::sqrt(squares));
  const float shrink = length > recipe.clip ? recipe.clip / length : 1.0F;
  const auto count = static_cast<float>(steps_);
  const float correct1 = 1.0F / (1.0F - std::pow(kBeta1, count));
  const float correct2 = 1.0F / (1.0F - std::pow(kBeta2, count));
  for (const Part& part : layout_.parts) {
    const float decay = part.is_norm() ? 0.0F : recipe.decay;
    const auto end = static_cast<std::size_t>(part.offset + part.values());
    for (auto i = static_cast<std::size_t>(part.offset); i < end; ++i) {
      const float g = gradients[i] * shrink;
      first_[i] = kBeta1 * first_[i] + (1.0F - kBeta1) * g;
      second_[i] = kBeta2 * second_[i] + (1.0F - kBeta2) * g * g;
      const float move = first_[i] * correct1 / (std::sqrt(second_[i] * correct2) + kAdamEpsilon);
      parameters[i] -= rate * (move + decay * parameters[i]);
      gradients[i] = 0;
    }
  }
}

double mean_loss(const Layout& layout, const std::vector<float>& parameters,
                 const std::vector<Document>& documents) {
  constexpr std::size_t kAtOnce = 32;
  Pass pass(layout);
  double sum = 0;
  Index count = 0;
  for (std::size_t at = 0; at < documents.size(); at += kAtOnce) {
    std::vector<const Document*> some;
    for (std::size_t i = at; i < std::min(at + kAtOnce, documents.size()); ++i) some.push_back(&documents[i]);
    sum += pass.loss(parameters, some);
    count += pass.answer_tokens();
  }
  return sum / static_cast<double>(std::max<Index>(1, count));
}

void train(const Layout& layout, const Recipe& recipe, const std::vector<Document>& documents,
           const std::vector<Document>& validation, Index report_steps, std::vector<float>& parameters,
           const std::function<void(const Progress&)>& report) {
  use_one_thread_per_call();
  Stream stream(documents, recipe.seed);
  AdamW adam(layout);
  std::vector<Worker> workers(static_cast<std::size_t>(recipe.threads), Worker(layout));
  Progress progress;
  double loss = 0;
  Index answers = 0;
  const Index end = recipe.last_step > 0 ? std::min(recipe.last_step, recipe.steps) : recipe.steps;
  for (Index step = 0; step < end; ++step) {
    Index batch_answers = 0;
    for (Worker& worker : workers) {
      worker.documents = stream.take(recipe.batch_tokens / recipe.threads);
      batch_answers += answers_in(worker.documents);
      for (const Document* d : worker.documents)
        progress.tokens_seen += static_cast<std::int64_t>(d->tokens.size());
    }
    const auto work = [&](Worker& worker) {
      worker.loss = worker.pass.loss(parameters, worker.documents);
      worker.pass.add_gradients(parameters, 1.0F / static_cast<float>(batch_answers), worker.gradients);
    };
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 1; i < workers.size(); ++i) threads.emplace_back([&, i] { work(workers[i]); });
      work(workers[0]);
    }
    std::vector<float>& sum = workers[0].gradients;
    loss += workers[0].loss;
    for (std::size_t w = 1; w < workers.size(); ++w) {
      loss += workers[w].loss;
      for (std::size_t i = 0; i < sum.size(); ++i) {
        sum[i] += workers[w].gradients[i];
        workers[w].gradients[i] = 0;
      }
    }
    answers += batch_answers;
    progress.rate = static_cast<double>(rate_at(recipe, step));
    adam.step(recipe, rate_at(recipe, step), sum, parameters);
    if ((step + 1) % report_steps == 0 || step + 1 == end) {
      progress.step = step + 1;
      progress.loss = loss / static_cast<double>(std::max<Index>(1, answers));
      progress.validation_loss = mean_loss(layout, parameters, validation);
      loss = 0;
      answers = 0;
      report(progress);
    }
  }
}

Result<> write_parameters(const std::vector<float>& parameters, const std::string& path) {
  const std::string temporary = path + ".part";
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(parameters.data()),
             static_cast<std::streamsize>(parameters.size() * sizeof(float)));
  file.close();
  if (file.fail())
    return fail(ErrorCode::kIo, std::string("cannot be written: ") + std::strerror(errno), temporary);
  std::error_code error;
  std::filesystem::rename(temporary, path, error);
  if (error) return fail(ErrorCode::kIo, error.message(), path);
  return {};
}

Result<std::vector<float>> read_parameters(const std::string& path, const Layout& layout) {
  std::vector<float> parameters(static_cast<std::size_t>(layout.total));
  std::error_code error;
  if (std::filesystem::file_size(path, error) != parameters.size() * sizeof(float) || error) {
    return fail(ErrorCode::kInvalidArgument, "is not a file of weights of this shape", path);
  }
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(parameters.data()),
            static_cast<std::streamsize>(parameters.size() * sizeof(float)));
  if (!file) return fail(ErrorCode::kIo, "cannot be read to its end", path);
  return parameters;
}

}  // namespace aiv::demo
