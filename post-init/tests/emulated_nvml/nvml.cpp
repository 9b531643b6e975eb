// NVIDIA's management library without a GPU, for the device of the emulated CUDA driver: what sensors read of it.
// EMULATED_CELSIUS tells its temperature (default 42).
#include <stdlib.h>
#include <string.h>

struct Memory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

enum { OK = 0, NOT_FOUND = 6 };

extern "C" {

int nvmlInit_v2() { return OK; }
int nvmlInitWithFlags(unsigned) { return OK; }
int nvmlShutdown() { return OK; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = nullptr;
    return strcmp(uuid, "GPU-01020304-0506-0708-090a-0b0c0d0e0f10") == 0 ? OK : NOT_FOUND;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *, void **) { return NOT_FOUND; }

int nvmlDeviceGetTemperature(void *, int, unsigned *celsius) {
    const char *wanted = getenv("EMULATED_CELSIUS");
    *celsius = wanted ? atoi(wanted) : 42;
    return OK;
}

int nvmlDeviceGetPowerUsage(void *, unsigned *milliwatts) { return *milliwatts = 123500, OK; }

int nvmlDeviceGetMemoryInfo_v2(void *, Memory *memory) {
    *memory = {memory->version, 2000000000, 0, 1500000000, 500000000};
    return OK;
}
}
