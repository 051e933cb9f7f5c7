// ld and st of every space, width and vector length. Orders and scopes (.acquire.gpu) and cache hints change nothing: one thing happens at a time here.
#include "memory.h"

namespace attune {
namespace ptxi {

Space take_space(Build& b, Space otherwise) {
  constexpr Space kSpaces[] = {Space::global, Space::constant, Space::shared, Space::shared, Space::shared,
                               Space::local,  Space::param,    Space::param,  Space::param};
  const int k = b.take_one({"global", "const", "shared", "shared::cta", "shared::cluster", "local", "param", "param::entry", "param::func"});
  return k < 0 ? otherwise : kSpaces[k];
}

void take_hints(Build& b) {
  for (const char* m :
       {"nc", "weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys", "ca", "cg", "cs", "lu", "cv", "wb", "wt"})
    b.take(m);
  b.take_all_from("L1::"), b.take_all_from("L2::");
}

void note_grain(Build& b, int bytes) {
  if (b.out.space == Space::shared || b.out.space == Space::generic) b.entry.grain = std::min(b.entry.grain, bytes);
}

namespace {

/// M: the type in memory; R: the register's. A signed M extends its sign.
template <typename M, typename R>
void load(Machine& x, const Instruction& i, Mask m) {
  const Item* to = x.entry.lists.data() + i.operand[0];
  const uint32_t count = i.detail[0];
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    const unsigned char* at = x.memory(i, l, i.space, x.address(i, 1, l), count * uint32_t(sizeof(M)), Use::read);
    for (uint32_t k = 0; k < count; k++) {
      M v;
      std::memcpy(&v, at + k * sizeof(M), sizeof(M));
      x.lanes<R>(to[k].at)[l] = R(v);
    }
  }
}
template <typename M, typename R>
void store(Machine& x, const Instruction& i, Mask m) {
  const Item* from = x.entry.lists.data() + i.operand[1];
  const uint32_t count = i.detail[0];
  for (; m; m &= m - 1) {
    const int l = __builtin_ctz(m);
    unsigned char* at = x.memory(i, l, i.space, x.address(i, 0, l), count * uint32_t(sizeof(M)), Use::write);
    for (uint32_t k = 0; k < count; k++) {
      const M v = M(x.lanes<R>(from[k].at)[l]);
      std::memcpy(at + k * sizeof(M), &v, sizeof(M));
    }
  }
}

template <typename M>
Handler load_into(int bytes) {
  return bytes == 2 ? load<M, uint16_t> : bytes == 4 ? load<M, uint32_t> : load<M, uint64_t>;
}
template <typename M>
Handler store_from(int bytes) {
  return bytes == 2 ? store<M, uint16_t> : bytes == 4 ? store<M, uint32_t> : store<M, uint64_t>;
}

Handler load_handler(Type t, int bytes) {
  switch (t) {
    case Type::s8: return load_into<int8_t>(bytes);
    case Type::s16: return load_into<int16_t>(bytes);
    case Type::s32: return load_into<int32_t>(bytes);
    default:
      return bytes_of(t) == 1   ? load_into<uint8_t>(bytes)
             : bytes_of(t) == 2 ? load_into<uint16_t>(bytes)
             : bytes_of(t) == 4 ? load_into<uint32_t>(bytes)
                                : load_into<uint64_t>(bytes);
  }
}

/// The registers of operand k: {a, b} or a; they may be wider than the type.
Type register_type(Build& b, size_t k, Type t) {
  const Term& first = b.term(k).kind == Term::vector ? b.term(k).items.at(0) : b.term(k);
  const bool sink = first.kind == Term::name && first.spelling == "_";
  const int bytes = first.kind == Term::number || sink ? std::max(2, bytes_of(t)) : b.bytes(k);
  if (bytes < bytes_of(t)) b.fail("a register narrower than its type");
  return bytes == 2 ? Type::b16 : bytes == 4 ? Type::b32 : Type::b64;
}

bool build(Build& b, bool loads) {
  take_hints(b);
  const Type t = b.type();
  if (t == Type::pred || b.types() != 1) return false;
  const size_t count = b.take("v2") ? 2 : b.take("v4") ? 4 : b.take("v8") ? 8 : 1;
  const size_t values = loads ? 0 : 1, place = loads ? 1 : 0;
  b.out.space = take_space(b, Space::generic);
  if (b.out.space == Space::param) b.out.space = b.names.parameter_space(b.term(place).items.at(0).spelling);
  const Type r = register_type(b, values, t);
  if (loads) b.write_list(0, values, r, count), b.address(1, place);
  else b.read_list(1, values, r, count), b.address(0, place);
  b.out.detail[0] = uint32_t(count);
  note_grain(b, int(count) * bytes_of(t));
  const int bytes = bytes_of(r);
  if (loads) b.out.run = load_handler(t, bytes);
  else
    b.out.run = bytes_of(t) == 1   ? store_from<uint8_t>(bytes)
                : bytes_of(t) == 2 ? store_from<uint16_t>(bytes)
                : bytes_of(t) == 4 ? store_from<uint32_t>(bytes)
                                   : store_from<uint64_t>(bytes);
  return true;
}
bool build_ld(Build& b) { return build(b, true); }
bool build_st(Build& b) { return build(b, false); }

void nothing(Machine&, const Instruction&, Mask) {}
/// Hints that move no data that anyone can see.
bool build_hint(Build& b) {
  b.take_all_from("");
  b.out.run = nothing;
  return true;
}
void no_policy(Machine& x, const Instruction& i, Mask m) {
  uint64_t* d = x.lanes<uint64_t>(i.operand[0]);
  each(m, [&](int l) { d[l] = 0; });
}
bool build_policy(Build& b) {
  b.take_all_from("");
  b.write(0, 0, Type::b64);
  b.out.run = no_policy;
  return true;
}

}  // namespace

void add_memory(Families& f) {
  f.insert({{"ld", build_ld}, {"ldu", build_ld}, {"st", build_st}});
  f.insert({{"prefetch", build_hint}, {"prefetchu", build_hint}, {"applypriority", build_hint}, {"discard", build_hint}, {"createpolicy", build_policy}});
}

}  // namespace ptxi
}  // namespace attune
