// A kernel ready to be interpreted: a flat list of instructions whose operands are places in a warp's register file.
//
// A register is 32 lanes side by side, of 2, 4 or 8 bytes each; a predicate is one mask of 32 bits. Literals and special registers (%tid.x) are registers as
// well, filled before a block starts, so that a handler never asks what kind of operand it has.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "types.h"

namespace attune {
namespace ptxi {

using Mask = uint32_t;  // of the lanes of a warp
constexpr Mask kAllLanes = 0xffffffffu;

class Machine;
struct Instruction;
using Handler = void (*)(Machine&, const Instruction&, Mask);

/// What the machine does around an instruction's handler.
enum class Flow : uint8_t {
  next,      // runs it for the lanes whose guard holds
  branch,    // those lanes go to `target`
  table,     // those lanes go to Entry::lists[detail[0] + operand[0]], one of detail[1]
  exit,      // those lanes are done
  together,  // runs once all lanes that it speaks for stand here
  barrier,   // likewise; then the warp waits until the handler's barrier lets it go
  poll,      // runs, then other warps get a turn if it was in vain
};

/// What becomes of registers that have not been written. Compilers compute with them and throw the result away (a branch turned into a selection), so that is
/// no error until something comes of it: an address, a value stored, a branch, an exchange between lanes.
enum class Unset : uint8_t {
  error,
  spreads,      // lanes in which a source is unset leave the target unset
  chosen,       // selp: only the source that is chosen counts; reads are a, b, predicate
  conjunction,  // and.pred: false and whatever is false
  disjunction,  // or.pred
};

struct Instruction {
  Handler run = nullptr;
  uint32_t operand[8] = {};  // places in the register file, or first indices into Entry::lists; the handler knows which
  int64_t offset = 0;        // of an address operand
  uint32_t detail[4] = {};   // what else the handler wants to know
  int32_t guard = -1;        // place of a predicate
  uint32_t guard_register = 0;
  uint32_t target = 0;                           // of a branch
  uint32_t reads = 0, writes = 0, uses_end = 0;  // Entry::uses[reads .. writes) are read, [writes .. uses_end) are written
  Flow flow = Flow::next;
  Space space = Space::generic;
  bool guard_not = false, label = false;  // label: lanes that ran apart may meet here
  Unset unset = Unset::error;
  bool all_lanes = false;  // together: speaks for every live lane (.aligned), not for a mask in operand[7]
  uint32_t line = 0, text = 0, text_end = 0;
};

struct Parameter {
  std::string name;
  int bytes = 0, alignment = 0, offset = 0;
};

enum class Special : uint8_t {
  tid_x,
  tid_y,
  tid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  warpid,
  nwarpid,
  lanemask_eq,
  lanemask_lt,
  lanemask_le,
  lanemask_gt,
  lanemask_ge,
  dynamic_smem_size,
  zero,
  one
};

/// A register that is filled before a block starts.
struct Preset {
  uint32_t at = 0, index = 0;
  int bytes = 0;
  bool special = false;
  Special which = Special::zero;
  uint64_t value = 0;  // if not special
};

struct Item {
  uint32_t at, index;
};

struct Source {
  std::string path, text;
};

struct Entry {
  std::string name;
  std::shared_ptr<const Source> source;
  std::vector<Parameter> parameters;
  int parameter_bytes = 0;
  int max_threads[3] = {1024, 1, 1};  // .maxntid: their product counts
  bool exact_threads = false;         // .reqntid
  int static_shared = 0, local_bytes = 0;
  int grain = 16;  // the narrowest access that may touch shared memory
  bool wgmma = false;
  std::vector<Instruction> code;
  std::vector<Item> lists;     // registers of vector operands
  std::vector<uint32_t> uses;  // indices of registers
  std::vector<Preset> presets;
  uint32_t file_bytes = 0, registers = 0;

  std::string text_of(const Instruction& i) const;
};

/// An address in the generic space carries its space in the top byte; global addresses are the host's own.
constexpr uint64_t kWindow = uint64_t(1) << 56;
constexpr uint64_t kSharedWindow = 0x7d * kWindow, kLocalWindow = 0x7e * kWindow, kParamWindow = 0x7f * kWindow;

}  // namespace ptxi
}  // namespace attune
