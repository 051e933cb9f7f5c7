// Where native/simt hands its launches over.
#include "../simt/global_memory.h"
#include "../simt/settings.h"
#include "ptxi.h"

namespace attune {
namespace ptxi {

void start(const cuda::Launch& l, const DeviceCaps& caps) {
  Options options;
  options.order = simt::opt.order == simt::Order::Random ? Order::random : simt::opt.order == simt::Order::Reverse ? Order::reverse : Order::forward;
  options.copies = simt::opt.async_copy == simt::Async::Random ? Arrival::random : simt::opt.async_copy == simt::Async::Early ? Arrival::early : Arrival::late;
  options.seed = simt::opt.seed;
  options.access_error = simt::access_error;
  launch(l, caps, simt::settings().ptx, options);
}

}  // namespace ptxi
}  // namespace attune
