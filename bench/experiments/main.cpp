// The experiments' program: `experiments_bench placement|day|routing [TRACE.csv]`. Everything it prints is simulated.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

void placement_table(int labs);
void day_table(int labs);
int routing_table(const std::string& trace);

int main(int argc, char** argv) {
  if (argc >= 2 && std::strcmp(argv[1], "placement") == 0) {
    placement_table(30);
    return 0;
  }
  if (argc >= 2 && std::strcmp(argv[1], "day") == 0) {
    day_table(argc > 2 ? std::atoi(argv[2]) : 10);
    return 0;
  }
  if (argc >= 2 && std::strcmp(argv[1], "routing") == 0) return routing_table(argc > 2 ? argv[2] : "");
  std::fprintf(stderr, "usage: experiments_bench placement | day [LABS] | routing [TRACE.csv]\n");
  return 2;
}
