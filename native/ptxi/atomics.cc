// atom and red in global and shared memory. The machine does one thing at a time, so each is atomic by itself; what is checked is that plain accesses to shared
// memory do not race with them.
#include "memory.h"
#include "narrow.h"

namespace attune {
namespace ptxi {

namespace {

struct Add {
  template <typename T>
  static T of(T old, T b, T) {
    return T(old + b);
  }
};
struct Min {
  template <typename T>
  static T of(T old, T b, T) {
    return b < old ? b : old;
  }
};
struct Max {
  template <typename T>
  static T of(T old, T b, T) {
    return b > old ? b : old;
  }
};
struct And {
  template <typename T>
  static T of(T old, T b, T) {
    return T(old & b);
  }
};
struct Or {
  template <typename T>
  static T of(T old, T b, T) {
    return T(old | b);
  }
};
struct Xor {
  template <typename T>
  static T of(T old, T b, T) {
    return T(old ^ b);
  }
};
struct Exchange {
  template <typename T>
  static T of(T, T b, T) {
    return b;
  }
};
struct Swap {  // cas: to c where it is b
  template <typename T>
  static T of(T old, T b, T c) {
    return old == b ? c : old;
  }
};
struct Increment {
  template <typename T>
  static T of(T old, T b, T) {
    return old >= b ? 0 : T(old + 1);
  }
};
struct Decrement {
  template <typename T>
  static T of(T old, T b, T) {
    return old == 0 || old > b ? b : T(old - 1);
  }
};

template <typename Op, typename T, bool kReturns>
void update(Machine& x, const Instruction& i, Mask m) {
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    unsigned char* at = x.memory(i, l, i.space, x.address(i, 1, l), sizeof(T), Use::atomic);
    T old;
    std::memcpy(&old, at, sizeof(T));
    const T value = Op::of(old, x.lanes<T>(i.operand[2])[l], i.detail[0] ? x.lanes<T>(i.operand[3])[l] : T());
    std::memcpy(at, &value, sizeof(T));
    if (kReturns) x.lanes<T>(i.operand[0])[l] = old;
  }
  x.events++;
}

/// add of f16x2 and bf16x2, half by half.
template <typename Half, bool kReturns>
void add_pairs(Machine& x, const Instruction& i, Mask m) {
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    unsigned char* at = x.memory(i, l, i.space, x.address(i, 1, l), 4, Use::atomic);
    uint32_t old, value = 0;
    std::memcpy(&old, at, 4);
    const uint32_t b = x.lanes<uint32_t>(i.operand[2])[l];
    for (int s = 0; s < 32; s += 16)
      value |= uint32_t(Half::narrow(odd_sum(Half::wide(uint16_t(old >> s)), Half::wide(uint16_t(b >> s))), Narrowing::nearest)) << s;
    std::memcpy(at, &value, 4);
    if (kReturns) x.lanes<uint32_t>(i.operand[0])[l] = old;
  }
}

template <typename Op, bool kReturns>
Handler bits_handler(Type t) {
  return bytes_of(t) == 4 ? update<Op, uint32_t, kReturns> : bytes_of(t) == 8 ? update<Op, uint64_t, kReturns> : update<Op, uint16_t, kReturns>;
}
template <typename Op, bool kReturns>
Handler ordered_handler(Type t) {
  if (t == Type::s32) return update<Op, int32_t, kReturns>;
  if (t == Type::s64) return update<Op, int64_t, kReturns>;
  return bits_handler<Op, kReturns>(t);
}

template <bool kReturns>
Handler handler(Build& b, Type t) {
  const int op = b.take_one({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"});
  switch (op) {
    case 0:
      b.take("noftz");
      if (t == Type::f32) return update<Add, float, kReturns>;
      if (t == Type::f64) return update<Add, double, kReturns>;
      if (t == Type::f16x2) return add_pairs<F16, kReturns>;
      if (t == Type::bf16x2) return add_pairs<Bf16, kReturns>;
      return bits_handler<Add, kReturns>(t);
    case 1: return ordered_handler<Min, kReturns>(t);
    case 2: return ordered_handler<Max, kReturns>(t);
    case 3: return bits_handler<And, kReturns>(t);
    case 4: return bits_handler<Or, kReturns>(t);
    case 5: return bits_handler<Xor, kReturns>(t);
    case 6: return bits_handler<Exchange, kReturns>(t);
    case 7: return bits_handler<Swap, kReturns>(t);
    case 8: return bits_handler<Increment, kReturns>(t);
    case 9: return bits_handler<Decrement, kReturns>(t);
    default: return nullptr;
  }
}

template <bool kReturns>
bool build(Build& b) {
  take_hints(b);
  if (b.types() != 1 || b.opcode() == "red.async") return false;
  const Type t = b.type();
  b.out.space = take_space(b, Space::generic);
  b.out.run = handler<kReturns>(b, t);
  const size_t first = kReturns ? 1 : 0;
  if (kReturns) b.write(0, 0, t);
  b.address(1, first), b.read(2, first + 1, t);
  if (b.operands() > first + 2) b.read(3, first + 2, t), b.out.detail[0] = 1;
  note_grain(b, bytes_of(t));
  return b.out.run != nullptr;
}

}  // namespace

void add_atomics(Families& f) { f.insert({{"atom", build<true>}, {"red", build<false>}}); }

}  // namespace ptxi
}  // namespace attune
