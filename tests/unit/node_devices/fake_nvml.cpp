// One card with the answers of an RTX 3060 under driver 535: eight digits of PCI domain, and processes by the
// _v3 ABI.
#include <cstring>

namespace {
struct Memory {
  unsigned long long total, free, used;
};
struct Pci {
  char legacy[16];
  unsigned domain, bus, device, id, subsystem;
  char bus_id[32];
};
struct Process {
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
};
}  // namespace

extern "C" {
int nvmlInit_v2() {
  return 0;
}
int nvmlShutdown() {
  return 0;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 1;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned, void** device) {
  static int card;
  *device = &card;
  return 0;
}
int nvmlSystemGetDriverVersion(char* text, unsigned) {
  std::strcpy(text, "535.247.01");
  return 0;
}
int nvmlDeviceGetUUID(void*, char* text, unsigned) {
  std::strcpy(text, "GPU-6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  return 0;
}
int nvmlDeviceGetName(void*, char* text, unsigned) {
  std::strcpy(text, "NVIDIA GeForce RTX 3060");
  return 0;
}
int nvmlDeviceGetPciInfo_v3(void*, Pci* pci) {
  std::strcpy(pci->bus_id, "00000000:0A:00.0");
  return 0;
}
int nvmlDeviceGetMemoryInfo(void*, Memory* memory) {
  *memory = {12884901888ULL, 9663676416ULL, 3221225472ULL};
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned* count, Process* out) {
  *count = 1;
  out[0] = {4711, 1073741824ULL, 0, 0};
  return 0;
}
}
