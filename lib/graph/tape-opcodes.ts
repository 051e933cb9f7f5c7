/** Opcodes of the `tape` op in the order that native/cpu/tape.cc numbers them: an opcode is its index here.
 *
 *  A tape is a register machine over elements. attrs.code holds instructions of five numbers, [opcode, dst, a, b, c], unused fields 0:
 *    constant                               dst = constants[a]
 *    unary ops                              dst = op(a)
 *    add .. greater                         dst = a op b
 *    silu_vjp gelu_vjp .. quick_gelu_vjp    dst = a * f'(b): a is dy, b is x
 *    select                                 dst = a != 0 ? b : c
 *    affine                                 dst = constants[b] * a + constants[c]
 *    clamp                                  dst = min(max(a, constants[b]), constants[c])
 *  dst, and a, b, c unless they are said to index constants, are registers. Registers 0 .. inputs-1 are the inputs, broadcast to the output shape,
 *  and are never written; the others may be written again, and dst may be one of a, b, c. There are tapeRegisters of them in all.
 *  attrs.outputs names the register of each output; an output is never an input's register. Everything has one dtype, f32 or f64.
 *  A tape gives the bits of its ops run one by one. */
export const tapeOpcodes = [
  "constant",
  "add",
  "sub",
  "mul",
  "div",
  "maximum",
  "minimum",
  "greater",
  "silu_vjp",
  "gelu_vjp",
  "gelu_tanh_vjp",
  "quick_gelu_vjp",
  "neg",
  "exp",
  "log",
  "log1p",
  "sqrt",
  "rsqrt",
  "square",
  "abs",
  "sigmoid",
  "softplus",
  "tanh",
  "relu",
  "silu",
  "gelu",
  "gelu_tanh",
  "quick_gelu",
  "sin",
  "cos",
  "reciprocal",
  "select",
  "affine",
  "clamp",
] as const;

export type TapeOpcode = (typeof tapeOpcodes)[number];

/** Registers of a tape, inputs included: what fits the first-level cache in blocks. */
export const tapeRegisters = 32;
