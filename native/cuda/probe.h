/* The border between the addon and build/Release/attune_cuda.so, in C: the two are compiled apart and meet through dlopen. */
#pragma once
#include <stdint.h>

#define ATTUNE_CUDA_MAX_DEVICES 64
#define ATTUNE_CUDA_PROBE "attune_cuda_probe"

#ifdef __cplusplus
extern "C" {
#endif

struct AttuneCudaDevice {
  char name[256];
  int major, minor; /* compute capability */
  int multiprocessors;
  uint64_t bytes; /* of device memory */
};

struct AttuneCudaProbe {
  int runtime_version; /* 13000 is 13.0 */
  int driver_version;  /* newest runtime that the driver serves; 0: no driver */
  int devices;
  char error[256]; /* "" if devices could be counted */
  struct AttuneCudaDevice device[ATTUNE_CUDA_MAX_DEVICES];
};

/* Fills *probe; never fails, a missing driver is text in `error`. */
typedef void (*AttuneCudaProbeFn)(struct AttuneCudaProbe* probe);

#ifdef __cplusplus
}
#endif
