// ATTUNE_SIMT: how the host machine plays a device, as "key=value,key=value". Read whenever a device is opened.
//   arch=80|86|89|90        compute capability, and with it the shared memory of a block (163, 99, 99, 227 KiB)
//   order=roundrobin|reverse|random, seed=N    which thread goes next; random also shuffles the blocks
//   copies=late|early|random                   when asynchronous copies land
//   checks=on|off|full      full: races on global memory too, some two times slower
//   threads=N               operating system threads that run blocks
//   memory=N                MiB of device memory
//   multiprocessors=N       what kernels that cut their work by them are told; 4 if not given
//   launches=FILE           what was started, at the end of that file when the device is closed (launch_log.h)
//   kernels=on|off          off: no kernel runs and the stream touches no memory; for launches=FILE at sizes that no host could compute
//   blocks=apart|ordered    under ThreadSanitizer, ordered: a block's accesses come before the next one's, which saves it new threads for every block: races
//                           within blocks are found some ten times faster, those between blocks not
//   profile=on              requests to memory by source line, printed when the device is closed
//   ptx=FOLDER              kernels are interpreted from the PTX in this folder instead (native/ptxi)
#pragma once
#include <cstdint>
#include <string>

#include "machine.h"

namespace attune {
namespace simt {

struct Settings {
  int arch = 80;
  int64_t memory = int64_t(1) << 40;  // bytes
  int multiprocessors = 4;
  bool kernels = true;
  bool ordered = false;
  std::string ptx, launches;
  Options options;
};

/// Throws ERR_CONFIG. Null is "".
Settings parse_settings(const char* text);
/// Those of the device that was opened last; its options are opt.
const Settings& settings();
void use(const Settings& settings);

}  // namespace simt
}  // namespace attune
